"""The status of a FineTuneJob."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import MAX_STRAGGLERS, DataSummary, LossAnomalies, Progress, SavedCheckpoint, Straggler

Phase = Literal["Pending", "Running", "Restarting", "Suspended", "Succeeded", "Failed"]


def _require_timestamp(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Timestamp = Annotated[str, AfterValidator(_require_timestamp)]
"""An RFC 3339 timestamp. A status with any other text cannot be read, so no policy has to expect one."""


class Condition(Section):
    """A Kubernetes condition (meta/v1): one aspect of the job's state, its reason, and the time of its last transition."""

    type: str = Field(max_length=316)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=1024, description="A constant in CamelCase, for programs.")
    message: str = Field(max_length=32768, description="One sentence, for people.")
    last_transition_time: Timestamp = Field(description="Time of the last change of status, RFC 3339.")
    observed_generation: int | None = None


class WorkersStatus(Section):
    """Number of pods that are ready."""

    ready: int = 0
    desired: int = Field(0, description="spec.workers.nodes.")
    replicas: int = Field(
        0,
        description="Number of nodes that the run uses now; while the job stops, the number of pods that have not stopped yet.",
    )
    summary: str = Field("0/0", description="ready/desired, for kubectl get.")
    selector: str | None = Field(None, description="Label selector of the pods, for the scale subresource.")

    @classmethod
    def of(cls, ready: int, desired: int, replicas: int, selector: str | None) -> Self:
        """The counts with their summary."""
        return cls(ready=ready, desired=desired, replicas=replicas, summary=f"{ready}/{desired}", selector=selector)

    def without_pods(self) -> Self:
        """The counts of the same job when it has no pods any more."""
        return self.of(0, self.desired, 0, self.selector)


class ElasticStatus(Section):
    """The number of nodes that the run of an elastic job uses, and its changes."""

    nodes: int | None = Field(None, description="Number of nodes that the run uses now; absent while the job has no pods.")
    message: str | None = Field(None, description="Why the run uses this number of nodes.")
    resizes: int = Field(0, description="Changes of the number of nodes; no retry budget is spent on them.")
    consecutive: int = Field(0, description="Changes with less than an hour between them; determines the pause before growth.")
    last_resize_time: Timestamp | None = None
    grow_time: Timestamp | None = Field(None, description="Time at which pods for more nodes are created.")
    missing_since: Timestamp | None = Field(None, description="Since when a pod that the run needs is missing.")
    bound_since: Timestamp | None = Field(None, description="Since when a pod for more nodes holds resources.")


class Failure(Section):
    """The failure that ended the job, or the last one that the job recovers from."""

    reason: str
    message: str
    rank: int | None = None
    node: str | None = Field(None, description="Kubernetes node of the failed pod.")
    pod: str | None = None
    exit_code: int | None = None


class RecentDisruption(Section):
    """A disruption of the job, and the step of its newest checkpoint at that time."""

    time: str
    step: int = 0


class Restarts(Section):
    """Restart counts by cause."""

    failures: int = Field(0, description="Pod failures; these count towards backoffLimit.")
    disruptions: int = Field(
        0, description="Evictions, drains, preemptions and deletions by other clients; these do not count towards backoffLimit."
    )
    ignored: int = Field(0, description="Pod failures that a rule of failurePolicy excludes from backoffLimit.")
    by_reason: dict[str, int] = Field(default_factory=dict)
    total: int = 0
    consecutive: int = Field(
        0, description="Restarts with less than ten minutes of training between them; determines the next back-off delay."
    )
    last_time: Timestamp | None = None
    backoff_seconds: int = Field(0, description="Pause between lastTime and the creation of the replacement pods.")
    recent_disruptions: list[RecentDisruption] = Field(
        default_factory=list,
        max_length=1001,
        description="The disruptions of the last hour since the newest checkpoint, which maxDisruptionsPerHour limits.",
    )


class PendingPods(Section):
    """Pods that cannot start: since when, and how often the job has released its resources and tried again."""

    since: str | None = Field(None, description="Since when a pod cannot start while others hold resources.")
    reason: str | None = Field(None, description="Why the pods were released last.")
    message: str | None = None
    releases: int = Field(0, description="Releases in a row; these count towards pendingRetryLimit.")
    release_time: str | None = Field(None, description="Time of the last release.")
    retry_time: str | None = Field(None, description="Time at which the released pods are created again.")


MAX_AVOIDED_NODES = 64


class AvoidedNode(Section):
    """A node that failed the preflight check of this job."""

    name: str
    time: Timestamp
    message: str
    is_last_resort: bool = Field(False, description="Whether it is used after all if no other node has room.")


class JobStatus(Section):
    """status of a FineTuneJob."""

    observed_generation: int | None = None
    phase: Phase = "Pending"
    reason: str | None = Field(
        None, description="Why the job does not run as it should, such as Unschedulable; absent when all is well."
    )
    conditions: list[Condition] = Field(default_factory=list)
    start_time: Timestamp | None = Field(None, description="Time at which pods were first created; reset by a suspension.")
    completion_time: Timestamp | None = None
    workers: WorkersStatus = WorkersStatus()
    data: DataSummary | None = None
    progress: Progress | None = None
    eta: str | None = Field(None, description="Estimated remaining time in a short form, such as 1h05m.")
    stragglers: list[Straggler] = Field(
        default_factory=list, max_length=MAX_STRAGGLERS, description="Ranks that the others wait for, the slowest first."
    )
    loss_anomalies: LossAnomalies | None = Field(
        None, description="Steps skipped and returns to a checkpoint, which training.lossAnomaly decides; absent without any."
    )
    metrics: dict[str, float] = Field(default_factory=dict, description="Final metrics.")
    checkpoint: SavedCheckpoint | None = None
    model: str | None = Field(None, description="URI of the exported model.")
    restarts: Restarts = Restarts()
    elastic: ElasticStatus | None = Field(None, description="The number of nodes of a job with workers.minNodes.")
    failure: Failure | None = None
    avoided_nodes: list[AvoidedNode] = Field(
        default_factory=list,
        max_length=MAX_AVOIDED_NODES,
        description="Nodes on which no pod is created until runPolicy.preflight.avoidNodesSeconds have passed.",
    )
    pending: PendingPods | None = Field(None, description="Pods that cannot start; absent when all can.")
    retained_pods: list[str] = Field(
        default_factory=list,
        max_length=4096,
        description="Names of the failed pods that were replaced and are kept for their logs, at most one for each node.",
    )
    counted_terminated_pods: list[str] = Field(
        default_factory=list,
        max_length=8192,
        description="UIDs of terminating or failed pods that restarts already includes, or that are excluded from it.",
    )
