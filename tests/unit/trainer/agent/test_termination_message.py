"""The termination message fits into 4096 bytes for every outcome."""

from __future__ import annotations

import pytest

from finetune_trainer.agent.termination_message import encode_bounded
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
def test_shortens_long_outcomes(message: str, metrics: int) -> None:
    outcome = Outcome(
        reason=Reason.CRASHED, message=message, rank=3, node=1, progress=Progress(step=7, total_steps=9),
        metrics={f"metric-{index:03}": index / 7 for index in range(metrics)}, checkpoint=CHECKPOINT, model="s3://bucket/model",
        data=DATA,
    )  # fmt: skip
    text = encode_bounded(outcome)
    assert len(text) <= 4096
    kept = Outcome.model_validate_json(text)
    assert (kept.reason, kept.rank, kept.node, kept.progress.step) == (Reason.CRASHED, 3, 1, 7)
    assert kept.checkpoint == CHECKPOINT
    assert message.startswith(kept.message.removesuffix("…"))
    assert len(kept.message) >= min(len(message), 255)
    assert kept.data is not None
    assert DATA.findings[: len(kept.data.findings)] == kept.data.findings
    assert list(kept.metrics) == list(outcome.metrics)[: len(kept.metrics)]


def test_keeps_short_outcomes_unchanged() -> None:
    outcome = Outcome(reason=Reason.COMPLETE, metrics={"loss": 1.5}, model="file:///model")
    assert Outcome.model_validate_json(encode_bounded(outcome)) == outcome


def test_drops_uris_last() -> None:
    long_uri = CHECKPOINT.model_copy(update={"uri": "s3://" + "x" * 5000})
    kept = Outcome.model_validate_json(encode_bounded(Outcome(reason=Reason.HANG, message="still", checkpoint=long_uri)))
    assert (kept.reason, kept.message, kept.checkpoint) == (Reason.HANG, "still", None)
