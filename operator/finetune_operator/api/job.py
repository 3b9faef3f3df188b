"""FineTuneJob: the document a user writes. The CRD, the chart's copy of the CRD and the reference are generated from it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from finetune_operator.api.run_policy import RunPolicy
from finetune_operator.api.status import JobStatus
from finetune_operator.api.workers import Workers
from finetune_trainer.config import TrainSpec
from finetune_trainer.config.base import Rule, Section

GROUP = "finetune-operator.io"
VERSION = "v1alpha1"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
SHORT_NAME = "ftj"
API_VERSION = f"{GROUP}/{VERSION}"


def _immutable(field: str) -> Rule:
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} is immutable: delete the job and apply it again, or apply the change under another metadata.name",
        field,
    )


class FineTuneJobSpec(TrainSpec):
    """What to train, on which pods, and under which policy."""

    workers: Workers = Workers()
    run_policy: RunPolicy = RunPolicy()

    rules: ClassVar[tuple[Rule, ...]] = (
        *TrainSpec.rules,
        Rule(
            "self.training.batchSize % "
            "(self.training.microBatchSize * self.workers.nodes * self.workers.processesPerNode) == 0",
            "batchSize must be a multiple of microBatchSize x workers.nodes x workers.processesPerNode: change one of them",
            "training.batchSize",
        ),
        *(_immutable(field) for field in (*TrainSpec.model_fields, "workers")),
    )

    def train_document(self) -> dict[str, Any]:
        """The part of the spec that the trainer reads, as in YAML: with the defaults, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(TrainSpec.model_fields))


class Metadata(Section):
    """The fields of an object's metadata that this project reads; all others are ignored."""

    model_config = Section.model_config | {"extra": "ignore"}

    name: str
    namespace: str = "default"
    uid: str = ""


class FineTuneJob(Section):
    """A run that pre-trains or fine-tunes one model."""

    api_version: Literal["finetune-operator.io/v1alpha1"] = "finetune-operator.io/v1alpha1"
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    metadata: Metadata
    spec: FineTuneJobSpec
    status: JobStatus = JobStatus()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "size(self.metadata.name) <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "not a valid name for pods and a Service: use at most 50 characters of a-z, 0-9 and -, beginning with a letter",
            "metadata.name",
        ),
    )
