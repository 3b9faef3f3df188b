"""The document of a cached job, which is validated when it is first needed.

An operator that starts finds all jobs of the cluster, most of them finished. A validation takes some milliseconds, and those of
thousands of finished jobs would delay the active ones.
"""

from __future__ import annotations

import functools
from typing import Any

from pydantic import ValidationError

from finetune_operator.api import FineTuneJob
from finetune_operator.api.scheduling import PREBUILT_LABEL, PRIORITY_LABEL, QUEUE_LABEL
from finetune_operator.profiles import ProfileError, Profiles
from finetune_trainer.config import explain


class JobDocument:
    """The document in a FineTuneJob object; `names_queue` is whether it may have a queue, which needs no validation."""

    def __init__(self, body: dict[str, Any], profiles: Profiles) -> None:
        self._body, self._profiles = body, profiles
        spec = body.get("spec")
        scheduling = spec.get("scheduling") if isinstance(spec, dict) else None
        has_name = isinstance(scheduling, dict) and bool(scheduling.get("queueName"))
        self.names_queue = has_name or bool(queue_labels(body["metadata"]))

    @functools.cached_property
    def validated(self) -> tuple[FineTuneJob | None, tuple[str, ...]]:
        """The document and no errors, or None and the errors of its spec."""
        body, self._body = self._body, {}  # the validated document takes its place in memory
        # Other metadata, such as annotations, may be large, and the operator does not use it.
        fields = ("name", "namespace", "uid", "generation")
        metadata = {name: body["metadata"][name] for name in fields if name in body["metadata"]}
        metadata["labels"] = queue_labels(body["metadata"])
        document = {name: body.get(name) for name in ("apiVersion", "kind", "spec")} | {"metadata": metadata}
        try:
            return self._profiles.apply(FineTuneJob.model_validate(document)), ()
        except ValidationError as error:
            return None, tuple(explain(error))
        except ProfileError as error:
            return None, error.errors


def queue_labels(metadata: dict[str, Any]) -> dict[str, str]:
    """The labels of a job that Kueue defines."""
    labels = metadata.get("labels") or {}
    return {name: value for name, value in labels.items() if name in (QUEUE_LABEL, PRIORITY_LABEL, PREBUILT_LABEL)}
