"""What a rank tells its agent: one JSON object a line through an inherited pipe.

The agent keeps the counters and serves them, so that they outlive a restarted rank and the training loop waits for
nobody. Every event is also a sign of life. Ranks other than 0 send `Alive` and `StepTime` only.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, Protocol

from pydantic import Field, TypeAdapter

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import DataSummary, Outcome, Progress, SavedCheckpoint


class Alive(Section):
    """A sign of life outside of steps, with what the rank is doing."""

    event: Literal["alive"] = "alive"
    activity: Literal["Starting", "Preparing", "Training", "Evaluating", "Exporting"]
    detail: str | None = Field(None, description="How far it is with that.")
    share: float | None = Field(None, description="The share of it that is done, where that is known.")


class DataFound(Section):
    """What the data is like; told before the first step."""

    event: Literal["data_found"] = "data_found"
    data: DataSummary


class Step(Section):
    """A finished optimizer step, as rank 0 saw it; sums are over all ranks.

    Steps that come very fast are not all told: tokens and samples count from the event before this one.
    """

    event: Literal["step"] = "step"
    progress: Progress
    gradient_norm: float = Field(description="L2 norm over all parameters, before clipping.")
    tokens: int = Field(description="Tokens learnt from since the event before.")
    samples: int = Field(description="Sequences since the event before.")
    padding_ratio: float = Field(description="Share of the step's token positions that were padding.")


class StepTime(Section):
    """How long a rank took for its optimizer steps since the event before, and how long of that it waited for data; seconds."""

    event: Literal["step_time"] = "step_time"
    steps: int = 1
    seconds: float
    data_wait_seconds: float


class Evaluated(Section):
    """Metrics on the evaluation data after a step; `loss` is always among them."""

    event: Literal["evaluated"] = "evaluated"
    step: int
    metrics: dict[str, float]


CheckpointPhase = Literal["snapshot", "write", "upload"]


class CheckpointStored(Section):
    """A checkpoint is committed. Durations in seconds by phase: snapshot (training stood still), write, upload."""

    event: Literal["checkpoint_stored"] = "checkpoint_stored"
    checkpoint: SavedCheckpoint
    size_bytes: int
    seconds: dict[CheckpointPhase, float]


class CheckpointFailed(Section):
    """A checkpoint could not be stored; training goes on."""

    event: Literal["checkpoint_failed"] = "checkpoint_failed"
    step: int
    message: str


class Ended(Section):
    """The rank's last word: how its part of the run ended."""

    event: Literal["ended"] = "ended"
    outcome: Outcome


Event = Annotated[
    Alive | DataFound | Step | StepTime | Evaluated | CheckpointStored | CheckpointFailed | Ended, Field(discriminator="event")
]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class EventSink(Protocol):
    """Where the loop says what happened."""

    def __call__(self, event: Event) -> None: ...


class PipeEventSink:
    """Writes events to a file descriptor; safe from several threads, as each event is one write below PIPE_BUF."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, event: Event) -> None:
        os.write(self._descriptor, event.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")


def parse(line: bytes | str) -> Event:
    """The event of one line; raises pydantic's ValidationError for anything else."""
    return _EVENTS.validate_json(line)
