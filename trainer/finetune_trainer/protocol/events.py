"""Events that a rank sends to its agent: one JSON object per line through an inherited pipe.

The agent keeps and serves the counters, so that they survive a restart of the rank and the training loop never waits for a
reader. Every event is also a heartbeat. Ranks other than 0 send only `Alive`, `Beat`
and `StepTime`.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, Protocol

from pydantic import Field, TypeAdapter

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import DataSummary, LossAnomalies, Outcome, Progress, SavedCheckpoint, Straggler

Activity = Literal["Starting", "Preparing", "Loading", "Training", "Evaluating", "Saving", "Exporting"]
"""What a rank does. It prepares data alone. `Loading` begins when it joins the process group: from then on it may wait for the
other ranks at any time."""


class Alive(Section):
    """The rank's current activity."""

    event: Literal["alive"] = "alive"
    activity: Activity
    detail: str | None = Field(None, description="Progress of the activity, as a sentence.")
    share: float | None = Field(None, description="Completed share of the activity, if known.")


class Beat(Section):
    """A heartbeat within the current activity."""

    event: Literal["beat"] = "beat"


class DataFound(Section):
    """A summary of the data, sent before the first step."""

    event: Literal["data_found"] = "data_found"
    data: DataSummary


class Step(Section):
    """A completed optimizer step, sent by rank 0; sums are over all ranks.

    Very fast steps share an event: tokens and samples are counted since the previous event.
    """

    event: Literal["step"] = "step"
    progress: Progress
    gradient_norm: float = Field(description="L2 norm over all parameters, before clipping.")
    tokens: int = Field(description="Training tokens since the previous event.")
    samples: int = Field(description="Training sequences since the previous event.")
    padding_ratio: float = Field(description="Share of padding in the step's token positions.")


class StepTime(Section):
    """Time of a rank's optimizer steps since the previous event, in seconds.

    Parts of it are the time that the rank waited for data, and that of its forward passes, in which it waits for no other rank.
    """

    event: Literal["step_time"] = "step_time"
    steps: int = 1
    seconds: float
    data_wait_seconds: float
    forward_seconds: float | None = None


class StragglersFound(Section):
    """The ranks that are slower than the others, sent by rank 0 when they are known and whenever they change."""

    event: Literal["stragglers_found"] = "stragglers_found"
    stragglers: list[Straggler]


class LossAnomalyFound(Section):
    """A step was skipped, or the run returned to a checkpoint; sent by rank 0, with what happened before in this run.

    A run that resumes sends it again if there were any.
    """

    event: Literal["loss_anomaly_found"] = "loss_anomaly_found"
    progress: Progress
    anomalies: LossAnomalies


class Evaluated(Section):
    """Metrics on the evaluation data after a step; they always include `loss`."""

    event: Literal["evaluated"] = "evaluated"
    step: int
    metrics: dict[str, float]


CheckpointPhase = Literal["snapshot", "write", "upload"]


class CheckpointStored(Section):
    """A committed checkpoint. `seconds` has the duration of each phase: snapshot (which blocks training), write and upload."""

    event: Literal["checkpoint_stored"] = "checkpoint_stored"
    checkpoint: SavedCheckpoint
    size_bytes: int
    seconds: dict[CheckpointPhase, float]


class CheckpointFailed(Section):
    """A checkpoint that could not be stored; training continues."""

    event: Literal["checkpoint_failed"] = "checkpoint_failed"
    step: int
    message: str


class Ended(Section):
    """The rank's outcome, its last event."""

    event: Literal["ended"] = "ended"
    outcome: Outcome


Event = Annotated[
    Alive
    | Beat
    | DataFound
    | Step
    | StepTime
    | StragglersFound
    | LossAnomalyFound
    | Evaluated
    | CheckpointStored
    | CheckpointFailed
    | Ended,
    Field(discriminator="event"),
]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class EventSink(Protocol):
    """A receiver of events."""

    def __call__(self, event: Event) -> None: ...


class PipeEventSink:
    """Writes events to a file descriptor. Thread-safe: each event is a single write of less than PIPE_BUF bytes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, event: Event) -> None:
        os.write(self._descriptor, event.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")


def parse(line: bytes | str) -> Event:
    """Parse one line; raises pydantic's ValidationError if it is not an event."""
    return _EVENTS.validate_json(line)
