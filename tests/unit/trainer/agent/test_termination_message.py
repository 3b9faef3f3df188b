"""The termination message fits, whatever it says."""

from __future__ import annotations

import pytest

from finetune_trainer.agent.termination_message import bounded
from finetune_trainer.protocol.outcome import DataSummary, Outcome, Progress, Reason, SavedCheckpoint

DATA = DataSummary(rows=5, tokens=500, findings=[f"{number}{'é' * 199}" for number in range(5)])
CHECKPOINT = SavedCheckpoint(step=10, time="2026-01-01T00:00:00Z", uri="s3://bucket/" + "x" * 900)


@pytest.mark.parametrize(
    ("message", "metrics"),
    [
        ("short", 3),
        ("x" * 5000, 3),
        ("ß" * 5000, 3),
        ("\x00" * 5000, 3),
        ('"\\' * 100_000, 3),
        ("𝄞" * 3000, 400),
        ("short", 400),
    ],
)
def test_at_most_4096_bytes_of_json(message: str, metrics: int) -> None:
    outcome = Outcome(
        reason=Reason.CRASHED, message=message, rank=3, node=1, progress=Progress(step=7, total_steps=9),
        metrics={f"metric-{index:03}": index / 7 for index in range(metrics)}, checkpoint=CHECKPOINT, model="s3://bucket/model",
        data=DATA,
    )  # fmt: skip
    text = bounded(outcome)
    assert len(text) <= 4096
    kept = Outcome.model_validate_json(text)
    assert (kept.reason, kept.rank, kept.node, kept.progress.step) == (Reason.CRASHED, 3, 1, 7)
    assert kept.checkpoint == CHECKPOINT
    assert message.startswith(kept.message.removesuffix("…"))
    assert len(kept.message) >= min(len(message), 255)
    assert kept.data is not None
    assert DATA.findings[: len(kept.data.findings)] == kept.data.findings
    assert list(kept.metrics) == list(outcome.metrics)[: len(kept.metrics)]


def test_what_fits_is_left_as_it_is() -> None:
    outcome = Outcome(reason=Reason.COMPLETE, metrics={"loss": 1.5}, model="file:///model")
    assert Outcome.model_validate_json(bounded(outcome)) == outcome


def test_addresses_go_last() -> None:
    endless = CHECKPOINT.model_copy(update={"uri": "s3://" + "x" * 5000})
    kept = Outcome.model_validate_json(bounded(Outcome(reason=Reason.HANG, message="still", checkpoint=endless)))
    assert (kept.reason, kept.message, kept.checkpoint) == (Reason.HANG, "still", None)
