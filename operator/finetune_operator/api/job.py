"""FineTuneJob: the document a user writes. The CRD, the chart's copy of the CRD and the reference are generated from it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from finetune_operator.api.run_policy import RunPolicy
from finetune_operator.api.scheduling import PRIORITY_LABEL, QUEUE_LABEL, Scheduling
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
    scheduling: Scheduling = Scheduling()
    managed_by: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        description="Controller that runs the job. The operator ignores jobs of other controllers, such as "
        "kueue.x-k8s.io/multikueue, which runs them in another cluster.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        *TrainSpec.rules,
        Rule(
            "self.training.batchSize % "
            "(self.training.microBatchSize * self.workers.nodes * self.workers.processesPerNode) == 0",
            "batchSize must be a multiple of microBatchSize x workers.nodes x workers.processesPerNode: change one of them",
            "training.batchSize",
        ),
        *(_immutable(field) for field in (*TrainSpec.model_fields, "workers", "managedBy")),
        Rule(
            "self.runPolicy.suspend || oldSelf.runPolicy.suspend || self.scheduling == oldSelf.scheduling",
            "scheduling can change only while runPolicy.suspend is true: suspend the job, change it, and resume the job",
            "scheduling",
        ),
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
    labels: dict[str, str] = Field(default_factory=dict)


class FineTuneJob(Section):
    """A run that pre-trains or fine-tunes one model."""

    api_version: Literal["finetune-operator.io/v1alpha1"] = "finetune-operator.io/v1alpha1"
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    metadata: Metadata
    spec: FineTuneJobSpec
    status: JobStatus = JobStatus()

    @property
    def queue_name(self) -> str | None:
        """The Kueue LocalQueue of the job; None if it starts without a queue."""
        return self.spec.scheduling.queue_name or self.metadata.labels.get(QUEUE_LABEL)

    @property
    def workload_priority_class(self) -> str | None:
        """The Kueue WorkloadPriorityClass of the job."""
        return self.spec.scheduling.workload_priority_class or self.metadata.labels.get(PRIORITY_LABEL)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "size(self.metadata.name) <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "not a valid name for pods and a Service: use at most 50 characters of a-z, 0-9 and -, beginning with a letter",
            "metadata.name",
        ),
    )
