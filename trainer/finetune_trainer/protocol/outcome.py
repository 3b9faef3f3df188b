"""Status and outcome of a run: the vocabulary that trainer and operator share.

The exit code of a pod's process identifies the `Reason`; the container's termination message is an `Outcome` as JSON. During
the run, the agent of node 0 answers `GET /progress` with a `RunStatus`. Does not import torch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field

from finetune_trainer.config.base import Section

# The operator copies these values to the status of a job, where the API server accepts only integers of 64 bits.
Count = Annotated[int, Field(ge=0, le=2**53)]


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
    GPU_UNAVAILABLE = "GPUUnavailable"
    LOSS_SPIKE = "LossSpike"
    PREFLIGHT_FAILED = "PreflightFailed"


class ExitPolicy(NamedTuple):
    """How agent and operator react to a reason.

    `in_place`: the agent may restart the ranks in the same pod. `retry`: the operator may replace the pod. `disruption`: the
    cause is outside the job, so that it does not count against the backoff limit.
    """

    exit_code: int
    in_place: bool
    retry: bool
    disruption: bool
    meaning: str


EXIT_POLICIES: dict[Reason, ExitPolicy] = {
    Reason.COMPLETE: ExitPolicy(0, False, False, False, "training finished and the model is stored"),
    Reason.CRASHED: ExitPolicy(1, True, True, False, "a rank died of an unexpected error or a signal"),
    Reason.INVALID_CONFIGURATION: ExitPolicy(2, False, False, False, "the configuration is invalid"),
    Reason.INVALID_DATA: ExitPolicy(3, False, False, False, "a file or row of the data is invalid"),
    Reason.OUT_OF_MEMORY: ExitPolicy(4, False, False, False, "the model, batch or data does not fit in memory"),
    Reason.NON_FINITE_LOSS: ExitPolicy(5, False, False, False, "the loss or a gradient became NaN or infinite"),
    Reason.HANG: ExitPolicy(6, True, True, False, "a rank made no progress within the time limit"),
    Reason.STORAGE_UNAVAILABLE: ExitPolicy(7, False, True, False, "the storage is unavailable"),
    Reason.RENDEZVOUS_FAILED: ExitPolicy(8, True, True, False, "the ranks could not connect, or lost the connection"),
    Reason.INTERNAL_ERROR: ExitPolicy(9, False, False, False, "an internal error; the traceback is in the log"),
    Reason.PREEMPTED: ExitPolicy(10, False, True, True, "stopped on request, after a checkpoint was stored"),
    Reason.PREEMPTED_UNSAVED: ExitPolicy(
        11, False, True, True, "stopped on request; the work since the last checkpoint is lost"
    ),
    Reason.GPU_UNAVAILABLE: ExitPolicy(12, False, True, False, "a GPU was asked for, and CUDA cannot use it"),
    Reason.LOSS_SPIKE: ExitPolicy(13, False, False, False, "the loss rose far above the losses before it"),
    Reason.PREFLIGHT_FAILED: ExitPolicy(
        14, False, True, True, "the node computes wrongly, or is slower than the others; the pod moves to another one"
    ),
}

REASON_OF_EXIT_CODE = {exit_policy.exit_code: reason for reason, exit_policy in EXIT_POLICIES.items()}


UNEXPECTED_ERROR = "an unexpected error, the traceback is in the log"


class TrainerError(Exception):
    """An error with a known reason; the message is one sentence with the cause and the remedy."""

    reason = Reason.CRASHED


class ConfigurationError(TrainerError):
    """The configuration is invalid; the message begins with the path of the field."""

    reason = Reason.INVALID_CONFIGURATION


class DataError(TrainerError):
    """A file or row of the data is invalid; the message begins with the file and, if known, the row."""

    reason = Reason.INVALID_DATA


class InsufficientDataError(DataError):
    """All rows that were read are too few, or too much alike, to learn from; more rows of the same data may be enough."""


class NonFiniteLossError(TrainerError):
    """The loss or the gradient norm became NaN or infinite."""

    reason = Reason.NON_FINITE_LOSS


class LossSpikeError(TrainerError):
    """The loss exceeded its limit relative to the losses before it."""

    reason = Reason.LOSS_SPIKE


class StorageError(TrainerError):
    """The storage did not answer, or refused a request."""

    reason = Reason.STORAGE_UNAVAILABLE


class GPUError(TrainerError):
    """A GPU was asked for and cannot be used; the message has the words of CUDA or of the driver."""

    reason = Reason.GPU_UNAVAILABLE


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a sentence that gives it as the cause."""
    return str(error).strip().partition("\n")[0]


class Progress(Section):
    """The progress of a run at the last completed optimizer step."""

    step: Count = Field(0, description="Completed optimizer steps.")
    total_steps: Count = Field(0, description="Optimizer steps of the whole run.")
    epoch: float = Field(0.0, description="Passes over the training data so far.")
    percent: int = Field(0, ge=0, le=100)
    remaining_seconds: Count | None = Field(None, description="Estimated from the last steps.")
    tokens_per_second: float | None = Field(None, description="Training tokens over all ranks, without padding.")
    loss: float | None = Field(None, description="Mean loss per token of the last step, over all ranks.")
    eval_loss: float | None = Field(None, description="Mean loss per token on the evaluation data.")
    learning_rate: float | None = None


class SavedCheckpoint(Section):
    """A committed checkpoint."""

    step: Count
    time: str = Field(description="When its manifest was stored, RFC 3339 in UTC.")
    uri: str = Field(description="URI of its manifest.")


class DataSummary(Section):
    """A summary of the data, made before training; the full report is data.json in the model's folder."""

    rows: Count = Field(0, description="Training sequences.")
    tokens: Count = Field(0, description="Tokens in the training sequences.")
    truncated_share: float = Field(0.0, ge=0, le=1, description="Share of the rows that were longer than maxLength.")
    findings: list[str] = Field(default_factory=list, max_length=5, description="Problems of the data, worst first.")


MAX_STRAGGLERS = 8


class Straggler(Section):
    """A rank whose own work takes much longer than that of the other ranks, which wait for it."""

    rank: int = Field(ge=0)
    node: int = Field(ge=0, description="Index of its node.")
    ratio: float = Field(ge=0, description="The time of its work in a step, relative to the median of the other ranks.")


MAX_ANOMALY_CHARACTERS = 1000


class LossAnomalies(Section):
    """What happened because of losses or gradients that were not finite, and of spikes of the loss, in the whole run."""

    skipped_steps: Count = Field(0, description="Steps that did not change the weights.")
    roll_backs: Count = Field(0, description="Returns to a checkpoint.")
    message: str = Field("", max_length=MAX_ANOMALY_CHARACTERS, description="The last anomaly: step, value and rows of data.")


class RunStatus(Section):
    """The answer of the agent of node 0 to `GET /progress`."""

    activity: str = Field(
        "Starting",
        max_length=64,
        pattern="^[A-Za-z]+$",
        description="Current activity, such as Preparing, Training or Exporting; the reason of the condition Running.",
    )
    detail: str | None = Field(None, description="Progress of the activity as a sentence, if it has no steps.")
    share: float | None = Field(None, ge=0, le=1, description="Completed share of the activity, if known.")
    data: DataSummary | None = None
    progress: Progress = Progress()
    checkpoint: SavedCheckpoint | None = None
    checkpoint_error: str | None = Field(None, description="Why the newest checkpoint could not be stored; absent if it was.")
    stragglers: list[Straggler] = Field(default_factory=list, max_length=MAX_STRAGGLERS, description="The slowest rank first.")
    loss_anomalies: LossAnomalies | None = Field(None, description="Absent if there were none.")
    restart_cause: str | None = Field(None, description="Why the ranks were last restarted in place: reason and message.")
    in_place_restarts: int = Field(0, ge=0, description="How often this agent has restarted its ranks.")


class Outcome(Section):
    """The outcome of a run, as a pod's termination message; at most 4096 bytes as JSON."""

    reason: Reason
    message: str = Field("", description="One sentence; for a failure with the cause and the remedy.")
    rank: Count | None = Field(None, description="The rank that failed first.")
    node: Count | None = Field(None, description="The index of the node that failed first.")
    data: DataSummary | None = None
    progress: Progress = Progress()
    metrics: dict[str, float] = Field(default_factory=dict, description="Final metrics, such as loss, evalLoss, perplexity.")
    checkpoint: SavedCheckpoint | None = None
    model: str | None = Field(None, description="URI of the exported model.")
    resumed: str | None = Field(
        None, description="How the run went on from a checkpoint if its length has changed or nothing was left to train."
    )

    @property
    def exit_policy(self) -> ExitPolicy:
        """How agent and operator react to the reason."""
        return EXIT_POLICIES[self.reason]
