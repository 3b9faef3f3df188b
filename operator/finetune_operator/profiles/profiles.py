"""The profiles of a cluster: their file, the choice of a job's profile, and its application."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import Field, ValidationError

from finetune_operator.api import FineTuneJob, NodeLimit
from finetune_operator.profiles.limits import violations
from finetune_operator.profiles.merge import conflicts, merge
from finetune_operator.profiles.model import Profile
from finetune_trainer.config.base import Rule, Section, explain

DEFAULT = "default"
NO_PROFILE = Profile(name=DEFAULT)


class ProfileError(Exception):
    """A file of profiles is invalid, or a profile refuses a job; each error is one sentence that names the field."""

    def __init__(self, *errors: str) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class Profiles(Section):
    """The content of the administrator's file."""

    profiles: list[Profile] = Field(default_factory=list, max_length=256)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.profiles.all(a, self.profiles.filter(b, b.name == a.name).size() == 1)",
            "two profiles have the same name: rename one",
            "profiles",
        ),
    )

    @classmethod
    def read(cls, file: str) -> Self:
        """The profiles of a YAML file; raises ProfileError, and OSError if the file cannot be read."""
        return cls.parse(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The profiles in the text of a YAML file; raises ProfileError."""
        try:
            content: Any = yaml.safe_load(text)
            return cls.model_validate(content if content is not None else {})
        except yaml.YAMLError as error:
            raise ProfileError(f"invalid YAML: {' '.join(str(error).split())}; correct it") from None
        except ValidationError as error:
            raise ProfileError(*explain(error)) from None

    def apply(self, job: FineTuneJob) -> FineTuneJob:
        """The job with the defaults of its profile; raises ProfileError if the profile does not allow the job as it is written.

        The defaults are an administrator's, so that the limits do not apply to them. An elastic job gets as many nodes as are
        allowed: it may have been scaled while it runs, and must not be left alone for that.
        """
        profile = self._choose(job)
        limiting = self._limiting(job, profile)
        errors = [error for item in limiting for error in violations(job, item)]
        if errors := [*errors, *conflicts(job.spec.workers, profile)]:
            raise ProfileError(*errors)
        workers, limit = merge(job.spec.workers, profile.defaults), _node_limit(job, limiting)
        if limit is not None:
            nodes = job.spec.largest_size(limit.max_nodes)
            assert nodes is not None, "minNodes is within the limit"
            workers = workers.model_copy(update={"nodes": nodes})
        if workers == job.spec.workers:
            return job
        metadata = job.metadata.model_copy(update={"revision": job.revision, "node_limit": limit})
        spec = job.spec.model_copy(update={"workers": workers})
        return FineTuneJob.model_construct(metadata=metadata, spec=spec, status=job.status)

    def _choose(self, job: FineTuneJob) -> Profile:
        """The profile that the job names, or else that of its namespace."""
        namespace, name = job.metadata.namespace, job.spec.workers.profile
        if name is None:
            return self._of_namespace(namespace)
        offered = self._offered(namespace)
        if name not in offered:
            choices = f"use {' or '.join(sorted(offered))}" if offered else "remove it"
            raise ProfileError(
                f"spec.workers.profile: there is no profile {name!r} for the namespace {namespace}: {choices}, "
                "or ask an administrator for it"
            )
        return offered[name]

    def _limiting(self, job: FineTuneJob, chosen: Profile) -> list[Profile]:
        """The profiles whose limits hold for a job.

        A profile that every namespace may choose must not open what an administrator closed for one of them, so the limits of
        the namespace's own profile hold too.
        """
        namespace = job.metadata.namespace
        own = self._of_namespace(namespace)
        if chosen == own or chosen.is_made_for(namespace):
            return [chosen]
        return [own, chosen.with_explicit_limits()]

    def _of_namespace(self, namespace: str) -> Profile:
        """The first profile that names the namespace, else the one called default."""
        for profile in self.profiles:
            if profile.is_made_for(namespace):
                return profile
        return self._offered(namespace).get(DEFAULT, NO_PROFILE)

    def _offered(self, namespace: str) -> dict[str, Profile]:
        return {profile.name: profile for profile in self.profiles if profile.is_offered_in(namespace)}


def _node_limit(job: FineTuneJob, limiting: list[Profile]) -> NodeLimit | None:
    """The smallest limit below the number of nodes of a job that no limit refuses; None if there is none."""
    nodes, limits = job.spec.workers.nodes, [(item.limits.max_nodes, item.name) for item in limiting]
    smaller = [(max_nodes, name) for max_nodes, name in limits if max_nodes is not None and max_nodes < nodes]
    if not smaller:
        return None
    max_nodes, name = min(smaller)
    return NodeLimit(profile=name, max_nodes=max_nodes, requested=nodes)
