"""FineTuneJob: the document a user writes. The CRD, the chart's copy of the CRD and the reference are generated from it."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from finetune_operator.api.run_policy import RunPolicy
from finetune_operator.api.scheduling import PRIORITY_LABEL, QUEUE_LABEL, Scheduling
from finetune_operator.api.status import JobStatus
from finetune_operator.api.transition_rules import transition_rules
from finetune_operator.api.workers import Workers
from finetune_trainer.config import TrainSpec
from finetune_trainer.config.base import Rule, Section
from finetune_trainer.config.uris import UriReference, uri_references

GROUP = "finetune-operator.io"
VERSION = "v1alpha1"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
SHORT_NAME = "ftj"
API_VERSION = f"{GROUP}/{VERSION}"
DIGEST_LENGTH = 10
MAX_SPEC_CHARACTERS = 200_000  # the trainer's part is in an annotation of each pod; all annotations have at most 256 KiB


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
        Rule(
            "!has(self.workers.minNodes) || self.training.batchSize % "
            "(self.training.microBatchSize * self.workers.minNodes * self.workers.processesPerNode) == 0",
            "batchSize must be a multiple of microBatchSize x minNodes x processesPerNode, too: choose another minNodes",
            "workers.minNodes",
        ),
        *transition_rules(),
    )

    @model_validator(mode="before")
    @classmethod
    def _limit_size(cls, data: Any) -> Any:
        size = len(json.dumps(data, default=str)) if isinstance(data, dict) else 0
        if size > MAX_SPEC_CHARACTERS:
            raise ValueError(
                f"has {size} characters as JSON, more than the {MAX_SPEC_CHARACTERS} that pods can get: shorten its longest "
                "texts or lists"
            )
        return data

    @property
    def allowed_nodes(self) -> tuple[int, ...]:
        """The numbers of nodes on which the run can train: one, or for an elastic job all that divide the batch, ascending.

        The global batch is the same on all of them; the number of accumulated micro-batches differs.
        """
        workers, training = self.workers, self.training
        smallest = workers.nodes if workers.min_nodes is None else workers.min_nodes
        batch_of_node = training.micro_batch_size * workers.processes_per_node
        return tuple(n for n in range(smallest, workers.nodes + 1) if training.batch_size % (batch_of_node * n) == 0)

    def largest_size(self, most: int) -> int | None:
        """The largest of the allowed numbers of nodes that is not above `most`; None if all are."""
        if most >= self.workers.nodes:
            return self.workers.nodes
        return max((nodes for nodes in self.allowed_nodes if nodes <= most), default=None)

    def train_document(self) -> dict[str, Any]:
        """The part of the spec that the trainer reads, as in YAML: with the defaults, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(TrainSpec.model_fields))

    def digest(self, *sections: str) -> str:
        """A short digest of sections of the spec, without the number of nodes.

        Values equal to a default do not change it, so that a later version of the operator, which has more fields, computes the
        same digest.
        """
        document = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(sections))
        workers = document.get("workers", {})
        workers.pop("nodes", None)
        if not workers:
            document.pop("workers", None)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:DIGEST_LENGTH]


class NodeLimit(Section):
    """The limit of a profile that is below the number of nodes in the document of an elastic job."""

    profile: str
    max_nodes: int
    requested: int = Field(description="workers.nodes of the document.")


class Metadata(Section):
    """The fields of an object's metadata that this project reads; all others are ignored."""

    model_config = Section.model_config | {"extra": "ignore"}

    name: str
    namespace: str = "default"
    uid: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    generation: int = 0
    revision: str = Field("", description="Digest of the spec before the defaults of a profile were added.")
    node_limit: NodeLimit | None = Field(None, description="Why workers.nodes is smaller than in the document.")


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

    @property
    def desired_nodes(self) -> int:
        """The number of nodes in the document; a profile may have limited spec.workers.nodes to fewer."""
        limit = self.metadata.node_limit
        return limit.requested if limit is not None else self.spec.workers.nodes

    @cached_property
    def revision(self) -> str:
        """The digest of everything in the spec that pods are made from; it changes only while the job is suspended.

        The number of nodes is not part of it: only the first pod depends on it (reconcile/elastic.py). Neither are the defaults
        of a profile: pods that run are not replaced when an administrator changes those.
        """
        return self.metadata.revision or self.spec.digest(*TrainSpec.model_fields, "workers", "scheduling")

    @cached_property
    def uri_references(self) -> tuple[UriReference, ...]:
        """The sections of the spec with a URI or a Secret for one."""
        return tuple(uri_references(self.spec.document(), "spec"))

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "size(self.metadata.name) <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "not a valid name for pods: use at most 50 characters of a-z, 0-9 and -, beginning with a letter",
            "metadata.name",
        ),
    )
