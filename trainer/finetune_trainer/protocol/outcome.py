"""How a run can end, and what it says of itself on the way: the vocabulary that trainer and operator share.

The exit code of a pod's process says which `Reason` it was; its last word, an `Outcome` as JSON, is the container's
termination message. While it runs, the agent of node 0 answers `GET /progress` with a `RunStatus`. Imports no torch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from finetune_trainer.config.base import Section


class Reason(StrEnum):
    """Why a process ended. The names are condition reasons in the job's status."""

    COMPLETE = "Complete"
    CRASHED = "Crashed"
    INVALID_CONFIGURATION = "InvalidConfiguration"
    INVALID_DATA = "InvalidData"
    OUT_OF_MEMORY = "OutOfMemory"
    NON_FINITE_LOSS = "NonFiniteLoss"
    HANG = "Hang"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    RENDEZVOUS_FAILED = "RendezvousFailed"
    INTERNAL_ERROR = "InternalError"
    PREEMPTED = "Preempted"
    PREEMPTED_UNSAVED = "PreemptedUnsaved"


class ExitPolicy(NamedTuple):
    """What a reason means for the run.

    `in_place`: the agent may start the ranks anew in the same pod. `retry`: the operator may replace the pod.
    `disruption`: not the job's fault, so that it spends no budget.
    """

    exit_code: int
    in_place: bool
    retry: bool
    disruption: bool
    meaning: str


EXIT_POLICIES: dict[Reason, ExitPolicy] = {
    Reason.COMPLETE: ExitPolicy(0, False, False, False, "the run finished and its model is stored"),
    Reason.CRASHED: ExitPolicy(1, True, True, False, "a rank died: an unexpected error or a signal"),
    Reason.INVALID_CONFIGURATION: ExitPolicy(2, False, False, False, "the document asks for what cannot be done"),
    Reason.INVALID_DATA: ExitPolicy(3, False, False, False, "a file or row of the data cannot be used"),
    Reason.OUT_OF_MEMORY: ExitPolicy(4, False, False, False, "the model, batch or data does not fit in memory"),
    Reason.NON_FINITE_LOSS: ExitPolicy(5, False, False, False, "the loss or a gradient became NaN or infinite"),
    Reason.HANG: ExitPolicy(6, True, True, False, "no rank made progress within its limit"),
    Reason.STORAGE_UNAVAILABLE: ExitPolicy(7, False, True, False, "the object storage could not be reached"),
    Reason.RENDEZVOUS_FAILED: ExitPolicy(8, True, True, False, "the ranks lost or never found each other"),
    Reason.INTERNAL_ERROR: ExitPolicy(9, False, False, False, "a bug; the traceback is in the log"),
    Reason.PREEMPTED: ExitPolicy(10, False, True, True, "told to stop; a checkpoint was stored first"),
    Reason.PREEMPTED_UNSAVED: ExitPolicy(11, False, True, True, "told to stop; work since the last checkpoint is lost"),
}

REASON_OF_EXIT_CODE = {exit_policy.exit_code: reason for reason, exit_policy in EXIT_POLICIES.items()}


class TrainerError(Exception):
    """A run ends for a known reason; the message is one sentence that says what to change."""

    reason = Reason.CRASHED


class ConfigurationError(TrainerError):
    """The document asks for what cannot be done; the message begins with the field's path."""

    reason = Reason.INVALID_CONFIGURATION


class DataError(TrainerError):
    """A file or row of the data cannot be used; the message begins with the file and, where there is one, the line."""

    reason = Reason.INVALID_DATA


class NonFiniteLossError(TrainerError):
    """The loss or the gradient norm became NaN or infinite."""

    reason = Reason.NON_FINITE_LOSS


class StorageError(TrainerError):
    """The object storage could not be reached, or refused."""

    reason = Reason.STORAGE_UNAVAILABLE


class Progress(Section):
    """Where a run stands, at the last finished optimizer step."""

    step: int = Field(0, ge=0, description="Finished optimizer steps.")
    total_steps: int = Field(0, ge=0, description="Optimizer steps of the whole run.")
    epoch: float = Field(0.0, description="Passes over the training data so far.")
    percent: int = Field(0, ge=0, le=100)
    remaining_seconds: int | None = Field(None, description="Estimated from the last steps.")
    tokens_per_second: float | None = Field(None, description="Tokens learnt from, over all ranks; padding is not counted.")
    loss: float | None = Field(None, description="Mean loss per token of the last step, over all ranks.")
    eval_loss: float | None = Field(None, description="Mean loss per token on the evaluation data.")
    learning_rate: float | None = None


class SavedCheckpoint(Section):
    """A committed checkpoint."""

    step: int = Field(ge=0)
    time: str = Field(description="When its manifest was stored, RFC 3339 in UTC.")
    uri: str = Field(description="Address of its manifest.")


class DataSummary(Section):
    """What was found of the data before training began; the whole report is data.json beside the model."""

    rows: int = Field(0, ge=0, description="Sequences to learn from.")
    tokens: int = Field(0, ge=0, description="Their tokens.")
    truncated_share: float = Field(0.0, ge=0, le=1, description="Share of the rows of data that were longer than maxLength.")
    findings: list[str] = Field(default_factory=list, max_length=5, description="What is wrong with the data, the worst first.")


class RunStatus(Section):
    """What the agent of node 0 answers to `GET /progress`."""

    activity: str = Field(
        "Starting", description="What the run does now: Starting, Preparing, Training, Evaluating, Exporting."
    )
    detail: str | None = Field(None, description="How far it is with that, where there are no steps yet.")
    share: float | None = Field(None, ge=0, le=1, description="The share of it that is done, where that is known.")
    data: DataSummary | None = None
    progress: Progress = Progress()
    checkpoint: SavedCheckpoint | None = None
    checkpoint_error: str | None = Field(None, description="Why the newest checkpoint could not be stored; absent if it was.")
    in_place_restarts: int = Field(0, ge=0, description="How often this agent started its ranks anew.")


class Outcome(Section):
    """The last word of a pod's agent, its termination message; at most 4096 bytes as JSON."""

    reason: Reason
    message: str = Field("", description="One sentence; for a failure it says what to change.")
    rank: int | None = Field(None, description="The rank that failed first.")
    node: int | None = Field(None, description="The index of the node that failed first.")
    data: DataSummary | None = None
    progress: Progress = Progress()
    metrics: dict[str, float] = Field(default_factory=dict, description="Final metrics, such as loss, evalLoss, perplexity.")
    checkpoint: SavedCheckpoint | None = None
    model: str | None = Field(None, description="Address of the exported model.")

    @property
    def exit_policy(self) -> ExitPolicy:
        """What the reason means for the run."""
        return EXIT_POLICIES[self.reason]
