"""Steps that are skipped and returns to a checkpoint: on real engines, and in whole runs with a broken row."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support import launch, ranks, training

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Reason

STEPS = 5


def changes(stage: int = 1, action: str = "SkipStep", steps: int = STEPS, **training_changes: Any) -> dict[str, Any]:
    return {
        "deepspeed": {"zeroStage": stage},
        "training": {
            "maxSteps": steps, "schedule": {"type": "Constant", "warmupSteps": 0}, "maxGradientNorm": 0.5,
            "lossAnomaly": {"action": action, "maxConsecutive": 2, "spikeRatio": 4}, **training_changes,
        },
    }  # fmt: skip


# The loss of the micro-batch with this row of the third batch is multiplied.
ROW = 305
FACTORS = {"NaN": math.nan, "infinite": math.inf, "spike": 30.0}


EVERY_STAGE = [
    (changes(0), "spike"), (changes(1), "NaN"), (changes(2), "spike"), (changes(3), "infinite"),
    (changes(2, precision="BFloat16"), "spike"),
]  # fmt: skip
OFFLOADED = changes(3) | {"deepspeed": {"zeroStage": 3, "offload": {"optimizer": "CPU", "parameters": "CPU"}}}
OTHER_LAYOUTS = [
    (changes(0), "NaN"), (changes(1), "spike"), (changes(3), "spike"), (OFFLOADED, "NaN"),
    (changes(1, precision="BFloat16"), "spike"), (changes(3, precision="BFloat16"), "spike"),
]  # fmt: skip


@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    "layouts", [EVERY_STAGE, pytest.param(OTHER_LAYOUTS, marks=pytest.mark.slow)], ids=["every stage", "other layouts"]
)
def test_a_skipped_step_changes_nothing(layouts: list[tuple[dict[str, Any], str]]) -> None:
    """The steps after it are, to the last bit, those of a run without its batch, at every stage and precision."""
    cases: list[tuple[dict[str, Any], dict[int, float], list[list[int]]]] = []
    for layout, kind in layouts:
        cases.append((layout, {ROW: FACTORS[kind]}, []))
        cases.append((layout | {"training": layout["training"] | {"maxSteps": STEPS - 1}}, {}, [[2, 1]]))
    first, second = ranks.run(training.runs_with_factors, 2, cases, timeout=600)
    for (case, _, _), skipping, without in zip(cases[::2], first[::2], first[1::2], strict=True):
        assert skipping.error is None, case
        assert skipping.curve == without.curve, case
        assert len(without.curve) == STEPS - 1
        assert [step for step, _ in skipping.anomalies] == [3]
    assert [result.anomalies for result in first] == [result.anomalies for result in second], "the ranks disagreed"


@pytest.mark.parametrize("size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_world_size_decides_alike(size: int) -> None:
    cases: list[tuple[dict[str, Any], dict[int, float], list[list[int]]]] = [
        (changes(action=action), {ROW: factor}, []) for action in ("SkipStep", "Fail") for factor in FACTORS.values()
    ]
    cases.append((changes(), dict.fromkeys((200, 300, 400), math.nan), []))  # one more than maxConsecutive
    cases.append((changes(), dict.fromkeys((200, 300, 500), math.nan), []))
    cases.append((changes(), dict.fromkeys(range(300, 308), math.nan), []))
    cases.append((changes(action="RollBack"), {ROW: math.nan}, []))
    rows = "rows.jsonl:304, rows.jsonl:305"
    expected = {
        "NaN": f"step 3: the loss became nan with {rows}",
        "infinite": f"step 3: the loss became inf with {rows}",
        "spike": "step 3: the loss of",
    }
    results = ranks.run(training.runs_with_factors, size, cases)[0]
    for result, kind in zip(results[:3], expected, strict=True):
        [(step, message)] = result.anomalies
        assert (step, result.error) == (3, None)
        assert message.startswith(expected[kind])
        assert message.endswith("; the step was skipped")
        assert rows in message
    for result, kind in zip(results[3:6], expected, strict=True):
        assert result.error.startswith(expected[kind])
        assert rows in result.error
        assert len(result.curve) == 2
    too_many, with_a_break, everywhere, no_checkpoint = results[6:]
    assert too_many.error.startswith("step 4: the loss became nan with rows.jsonl:400, rows.jsonl:401")
    assert "lossAnomaly.maxConsecutive" in too_many.error
    assert [step for step, _ in with_a_break.anomalies] == [2, 3, 5]
    assert "in all micro-batches, so that the weights are the cause" in everywhere.anomalies[0][1]
    assert "RollBack needs a checkpoint" in no_checkpoint.error


def write_document(folder: Path, action: str, **training_changes: Any) -> Path:
    """A regression over 64 rows, of which the label of line 42 is too large for a squared error in float32."""
    folder.mkdir(exist_ok=True)
    rows = [{"text": f"{launch.WORDS[i % 16]} {launch.WORDS[i // 16]}", "label": i / 64} for i in range(64)]
    rows[41]["label"] = 1e30
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = json.loads(launch.write_document(folder).read_text())
    document["model"]["config"]["model_type"] = "llama"
    document |= {
        "objective": {"type": "SequenceClassification", "sequenceClassification": {"problem": "Regression"}},
        "data": {"train": [{"source": f"file://{folder}/rows.jsonl"}], "maxLength": 16},
        "evaluation": {},
    }
    document["training"] |= {"maxSteps": 12, "lossAnomaly": {"action": action}, **training_changes}
    document["checkpoint"] |= {"everySteps": 4}
    path = folder / "train.json"
    path.write_text(json.dumps(document))
    return path


def read_history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "storage/model/training/history.jsonl").read_text().splitlines()]


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    results = ranks.run(launch.run_rank, 2, write_document(tmp_path, "Fail", microBatchSize=1))
    assert {result.outcome.reason for result in results} == {Reason.NON_FINITE_LOSS}
    assert f"the loss became inf with {tmp_path}/rows.jsonl:42 (" in results[0].outcome.message


# The row is in the batch of step 7.
@pytest.mark.parametrize("steps", [9, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("action", ["SkipStep", "RollBack"])
def test_a_stopped_and_resumed_run_has_the_same_history(tmp_path: Path, action: str, steps: int) -> None:
    straight = ranks.run(launch.run_rank, 2, write_document(tmp_path / "straight", action))
    assert [result.code for result in straight] == [0, 0]
    found = [event for event in straight[0].events if event.event == "loss_anomaly_found"]
    assert found
    assert "rows.jsonl:42" in found[0].anomalies.message
    assert (found[-1].anomalies.skipped_steps > 0) == (action == "SkipStep")
    assert (found[-1].anomalies.roll_backs > 0) == (action == "RollBack")
    expected = read_history(tmp_path / "straight")
    assert any("anomaly" in point for point in expected)
    folder = tmp_path / "stopped"
    document = write_document(folder, action)
    if action == "SkipStep":
        stopped = ranks.run(launch.run_rank, 2, document, {1: (signal.SIGTERM, steps)})
        assert [result.code for result in stopped] == [EXIT_POLICIES[Reason.PREEMPTED].exit_code] * 2
    else:  # a stop on request would store a checkpoint, to which the run would return
        with pytest.raises(AssertionError, match="the process died"):
            ranks.run(launch.run_rank, 2, document, dict.fromkeys((0, 1), (signal.SIGKILL, steps)))
    assert [result.code for result in ranks.run(launch.run_rank, 2, document)] == [0, 0]
    assert _without(folder, read_history(folder)) == _without(tmp_path / "straight", expected)


def _without(folder: Path, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history without the folder, whose name is part of the rows' places."""
    text = json.dumps(history).replace(str(folder), "")
    return list(json.loads(text))
