"""The document of a cached job, which is validated when it is first needed.

An operator that starts finds all jobs of the cluster, most of them finished. A validation takes some milliseconds, and those of
thousands of finished jobs would delay the active ones.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from pydantic import ValidationError

from finetune_operator.api import FineTuneJob
from finetune_operator.api.scheduling import ORIGIN_LABEL, PREBUILT_LABEL, PRIORITY_LABEL, QUEUE_LABEL
from finetune_operator.profiles import ProfileError, Profiles
from finetune_trainer.config import explain

KUEUE_LABELS = (QUEUE_LABEL, PRIORITY_LABEL, PREBUILT_LABEL, ORIGIN_LABEL)


class ValidationResult(NamedTuple):
    """The document, or None and the errors of its spec.

    `is_refused_by_profile` is whether the errors are an administrator's limits, which the spec is valid without.
    """

    document: FineTuneJob | None
    errors: tuple[str, ...] = ()
    is_refused_by_profile: bool = False


class JobDocument:
    """The document in a FineTuneJob object; `names_queue` is whether it may have a queue, which needs no validation."""

    def __init__(self, body: dict[str, Any], profiles: Profiles) -> None:
        self._body, self._profiles = body, profiles
        spec = body.get("spec")
        scheduling = spec.get("scheduling") if isinstance(spec, dict) else None
        has_name = isinstance(scheduling, dict) and bool(scheduling.get("queueName"))
        self.names_queue = has_name or bool(queue_labels(body["metadata"]))

    @functools.cached_property
    def validated(self) -> ValidationResult:
        """The document with the defaults of its profile, or the errors."""
        body, self._body = self._body, {}  # the validated document takes its place in memory
        # Other metadata, such as annotations, may be large, and the operator does not use it.
        fields = ("name", "namespace", "uid", "generation")
        metadata = {name: body["metadata"][name] for name in fields if name in body["metadata"]}
        metadata["labels"] = queue_labels(body["metadata"])
        document = {name: body.get(name) for name in ("apiVersion", "kind", "spec")} | {"metadata": metadata}
        try:
            return ValidationResult(self._profiles.apply(FineTuneJob.model_validate(document)))
        except ValidationError as error:
            return ValidationResult(None, tuple(explain(error)))
        except ProfileError as error:
            return ValidationResult(None, error.errors, is_refused_by_profile=True)


def queue_labels(metadata: dict[str, Any]) -> dict[str, str]:
    """The labels of a job that Kueue defines."""
    labels = metadata.get("labels") or {}
    return {name: value for name, value in labels.items() if name in KUEUE_LABELS}
