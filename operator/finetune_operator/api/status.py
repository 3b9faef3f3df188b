"""What the operator says about a job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import DataSummary, Progress, SavedCheckpoint

Phase = Literal["Pending", "Running", "Restarting", "Suspended", "Succeeded", "Failed"]


class Condition(Section):
    """A Kubernetes condition (meta/v1): one aspect of the job, why it is so, and since when."""

    type: str = Field(max_length=316)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=1024, description="A constant, in CamelCase.")
    message: str = Field(max_length=32768, description="One sentence for people.")
    last_transition_time: str = Field(description="When status last changed, RFC 3339.")
    observed_generation: int | None = None


class WorkersStatus(Section):
    """How many of the job's pods are ready."""

    ready: int = 0
    desired: int = 0
    summary: str = Field("0/0", description="ready/desired, for kubectl get.")


class Failure(Section):
    """What went wrong last: the job's end if it failed, else what it recovers from."""

    reason: str
    message: str
    rank: int | None = None
    node: str | None = Field(None, description="The Kubernetes node the failed pod ran on.")
    pod: str | None = None
    exit_code: int | None = None


class Restarts(Section):
    """How often pods were replaced, by whose fault."""

    failures: int = Field(0, description="Failures of pods; these count towards backoffLimit.")
    disruptions: int = Field(0, description="Evictions, drains, preemptions and deletions by others; these do not.")
    by_reason: dict[str, int] = Field(default_factory=dict)
    total: int = 0
    consecutive: int = Field(0, description="Without ten quiet minutes between them; decides how long the next one waits.")
    last_time: str | None = None


class JobStatus(Section):
    """status of a FineTuneJob."""

    observed_generation: int | None = None
    phase: Phase = "Pending"
    conditions: list[Condition] = Field(default_factory=list)
    start_time: str | None = Field(None, description="When pods were last started: at first, or after a suspension.")
    completion_time: str | None = None
    workers: WorkersStatus = WorkersStatus()
    data: DataSummary | None = None
    progress: Progress | None = None
    eta: str | None = Field(None, description="Remaining time as people write it, such as 1h05m.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Final metrics.")
    checkpoint: SavedCheckpoint | None = None
    model: str | None = Field(None, description="Address of the exported model.")
    restarts: Restarts = Restarts()
    failure: Failure | None = None
    counted_terminated_pods: list[str] = Field(
        default_factory=list,
        max_length=8192,
        description="UIDs of pods that have to go and are counted in restarts already, where they count at all.",
    )
