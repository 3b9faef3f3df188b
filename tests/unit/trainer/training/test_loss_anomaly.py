"""Which losses are anomalies, when a run gives up on them, and which batches it leaves out."""

from __future__ import annotations

import json
import math

import pytest

from finetune_trainer.config import LossAnomalyConfig
from finetune_trainer.protocol.outcome import MAX_ANOMALY_CHARACTERS, LossSpikeError, NonFiniteLossError
from finetune_trainer.training.loss_anomaly import (
    WINDOW,
    Anomaly,
    AnomalyRecord,
    failure,
    find_loss_anomaly,
    is_limit_reached,
)
from finetune_trainer.training.skipped_batches import SkippedBatches

SPIKES = LossAnomalyConfig(spike_ratio=3.0)
STEADY = [2.0] * 20


@pytest.mark.parametrize(
    ("loss", "recent", "config", "problem"),
    [
        pytest.param(2.0, STEADY, SPIKES, None, id="as before"),
        pytest.param(math.nan, [], LossAnomalyConfig(), "the loss became nan", id="NaN"),
        pytest.param(-math.inf, [], LossAnomalyConfig(), "the loss became -inf", id="infinite"),
        pytest.param(6.0, STEADY, SPIKES, None, id="at the limit"),
        pytest.param(
            6.2, STEADY, SPIKES, "the loss of 6.2 is 3.1 times the median of the last 20 losses", id="above the limit"
        ),
        pytest.param(100.0, STEADY, LossAnomalyConfig(), None, id="not looked for"),
        pytest.param(100.0, STEADY[1:], SPIKES, None, id="too few losses to compare with"),
        pytest.param(9.0, [*STEADY, 50.0, 60.0], SPIKES, "the loss of 9 is 4.5 times the median of the last 22 losses",
                     id="earlier outliers do not hide it"),
        pytest.param(1.0, [-0.5] * 20, SPIKES, None, id="a ratio of negative losses means nothing"),
    ],
)  # fmt: skip
def test_finds_anomalies(loss: float, recent: list[float], config: LossAnomalyConfig, problem: str | None) -> None:
    anomaly = find_loss_anomaly(loss, AnomalyRecord(recent_losses=recent), config)
    assert (anomaly and anomaly.problem) == problem
    assert anomaly is None or anomaly.is_spike == math.isfinite(loss)


def test_compares_with_the_last_losses_only() -> None:
    record = AnomalyRecord()
    for step in range(WINDOW + 5):
        record.add_loss(float(step), SPIKES)
    assert record.recent_losses == [float(step) for step in range(5, WINDOW + 5)]


def test_keeps_no_losses_unless_spikes_are_looked_for() -> None:
    record = AnomalyRecord()
    record.add_loss(1.0, LossAnomalyConfig())
    assert record.recent_losses == []


def test_skipped_steps_count_in_a_row() -> None:
    config, record = LossAnomalyConfig(action="SkipStep", max_consecutive=2), AnomalyRecord()
    reached = []
    for is_anomaly in (True, False, True, True, True):
        reached.append(is_limit_reached(record, config, 0))
        if is_anomaly:
            record.skip_step("step 1: no")
        else:
            record.add_loss(1.0, config)
    assert reached == [False, False, False, False, True]
    assert record.total.skipped_steps == 4


def test_returns_count_by_checkpoint() -> None:
    config, record = LossAnomalyConfig(action="RollBack", max_consecutive=2), AnomalyRecord()
    reached = []
    for checkpoint, failed in ((10, 13), (10, 14), (10, 12), (20, 25), (20, 27)):
        reached.append(is_limit_reached(record, config, checkpoint))
        record = record.roll_back(AnomalyRecord(), checkpoint, failed, f"step {failed}: no")
    assert reached == [False, False, True, False, False]
    assert record.consecutive == 2
    assert record.total.roll_backs == 5


def test_a_return_takes_the_losses_of_the_checkpoint() -> None:
    stored = AnomalyRecord(recent_losses=[1.0])
    record = AnomalyRecord(recent_losses=[1.0, 2.0, 3.0]).roll_back(stored, 4, 6, "x" * 5000)
    assert record.recent_losses == [1.0]
    assert len(record.total.message) == MAX_ANOMALY_CHARACTERS


def test_is_restored_from_a_checkpoint() -> None:
    record = AnomalyRecord([1.5, 2.5], 1).roll_back(AnomalyRecord([1.5]), 4, 6, "step 6: the loss became nan")
    assert AnomalyRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize(
    ("ranges", "step", "failed_step", "expected"),
    [
        pytest.param((), 4, 6, [0, 1, 2, 3, 6, 7, 8, 9], id="steps 5 and 6 fail: their batches, 4 and 5, are left out"),
        pytest.param(((4, 2),), 4, 7, [0, 1, 2, 3, 9, 10, 11, 12], id="the same checkpoint again"),
        pytest.param(((2, 1),), 4, 5, [0, 1, 3, 4, 6, 7, 8, 9], id="a newer checkpoint"),
        pytest.param(((6, 3),), 4, 7, [0, 1, 2, 3, 10, 11, 12, 13], id="an older checkpoint, as the newer one is damaged"),
        pytest.param((), 0, 1, [1, 2, 3, 4, 5, 6, 7, 8], id="the first step"),
    ],
)
def test_leaves_out_the_batches_since_the_checkpoint(
    ranges: tuple[tuple[int, int], ...], step: int, failed_step: int, expected: list[int]
) -> None:
    skipped = SkippedBatches(ranges).after_roll_back(step, failed_step)
    assert [skipped.batch_of_step(finished) for finished in range(8)] == expected
    assert SkippedBatches.from_list(json.loads(json.dumps(skipped.to_list()))) == skipped


@pytest.mark.parametrize(
    ("action", "checkpoint_step", "expected"),
    [
        ("Fail", 4, "the last good checkpoint is that of step 4): lower"),
        ("Fail", 0, "or set spec.training.lossAnomaly.action to SkipStep or RollBack"),
        ("SkipStep", 4, "after 5 skipped steps in a row spec.training.lossAnomaly.maxConsecutive is reached"),
        ("RollBack", 4, "after 5 returns to the same checkpoint spec.training.lossAnomaly.maxConsecutive is reached"),
        ("RollBack", 0, "RollBack needs a checkpoint: save earlier with spec.checkpoint.everySteps"),
    ],
)
def test_failure_says_what_was_tried(action: str, checkpoint_step: int, expected: str) -> None:
    config = LossAnomalyConfig.model_validate({"action": action})
    error = failure("step 6: the loss became nan with a.jsonl:7", Anomaly("the loss became nan"), checkpoint_step, config)
    assert isinstance(error, NonFiniteLossError)
    assert str(error).startswith("step 6: the loss became nan with a.jsonl:7 (")
    assert expected in str(error)
    assert isinstance(failure("", Anomaly("", is_spike=True), 0, config), LossSpikeError)
