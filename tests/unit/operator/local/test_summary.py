"""The lines at the end of a local run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_operator.local.job_directory import JobDirectory
from finetune_operator.local.summary import combine_outcomes, summary_lines
from finetune_trainer.protocol.outcome import DataSummary, Outcome, Progress, Reason, SavedCheckpoint

CHECKPOINT = SavedCheckpoint(step=40, time="2026-01-01T00:00:00Z", uri="file:///out/manifests/step-00000040.json")
RESUME = "finetune run job.yaml"


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([Reason.COMPLETE, Reason.COMPLETE], Reason.COMPLETE),
        ([Reason.PREEMPTED, Reason.PREEMPTED], Reason.PREEMPTED),
        ([Reason.PREEMPTED, Reason.PREEMPTED_UNSAVED], Reason.PREEMPTED_UNSAVED),
        ([Reason.PREEMPTED, Reason.CRASHED], Reason.CRASHED),
        ([Reason.COMPLETE, Reason.CRASHED], Reason.COMPLETE),
    ],
    ids=["all-complete", "all-preempted", "one-unsaved", "one-crashed", "node-0-complete"],
)
def test_chooses_the_worst_outcome_unless_node_0_completed(nodes: list[Reason], expected: Reason) -> None:
    outcomes = [Outcome(reason=reason) for reason in nodes]
    outcomes[0] = outcomes[0].model_copy(update={"progress": Progress(step=41), "checkpoint": CHECKPOINT})
    outcome = combine_outcomes(outcomes)
    assert (outcome.reason, outcome.progress.step, outcome.checkpoint) == (expected, 41, CHECKPOINT)


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            Outcome(reason=Reason.PREEMPTED, progress=Progress(step=40), checkpoint=CHECKPOINT),
            "stopped at step 40 after storing a checkpoint; resume with: finetune run job.yaml",
        ),
        (Outcome(reason=Reason.PREEMPTED), "stopped before the first step; resume with: finetune run job.yaml"),
        (
            Outcome(reason=Reason.PREEMPTED_UNSAVED, progress=Progress(step=45), checkpoint=CHECKPOINT),
            "stopped at step 45; the work since the checkpoint at step 40 is lost; resume with: finetune run job.yaml",
        ),
        (
            Outcome(reason=Reason.PREEMPTED_UNSAVED),
            "stopped without a checkpoint; resume with: finetune run job.yaml",
        ),
    ],
    ids=["with-checkpoint", "before-first-step", "unsaved", "without-checkpoint"],
)
def test_stopped_run_prints_the_command_that_resumes_it(outcome: Outcome, line: str, tmp_path: Path) -> None:
    assert summary_lines(outcome, JobDirectory(tmp_path), RESUME) == [line]


def test_finished_run_prints_metrics_and_paths(tmp_path: Path) -> None:
    reports = tmp_path / "model" / "training"
    reports.mkdir(parents=True)
    (reports / "loss.png").touch()
    (reports / "samples.json").write_text(json.dumps([{"prompt": "import ", "continuation": "os\n"}]))
    report = {"stoppedEarly": "evaluation loss has not improved", "fit": {"kind": "Settled", "sentence": "settled: so it is"}}
    (reports / "report.json").write_text(json.dumps(report))
    outcome = Outcome(
        reason=Reason.COMPLETE,
        progress=Progress(step=200, loss=2.0),
        metrics={"evalLoss": 1.0},
        data=DataSummary(findings=["1 of 5 training rows with personal data"]),
        model=f"file://{tmp_path}/model",
    )
    assert summary_lines(outcome, JobDirectory(tmp_path), RESUME) == [
        "finished after 200 steps",
        "  loss        2.0000",
        "  eval loss   1.0000",
        "  perplexity  2.7183",
        "  data        1 of 5 training rows with personal data",
        f"  model       {tmp_path}/model",
        f"  loss plot   {tmp_path}/model/training/loss.png",
        "  stopped     evaluation loss has not improved",
        "  diagnosis   settled: so it is",
        "  sample      'import ' continues with 'os\\n'",
    ]


def test_failed_run_prints_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "node-1.log").write_text("".join(f"line {number}\n" for number in range(100)))
    outcome = Outcome(reason=Reason.INVALID_DATA, message="train.jsonl:3: no text; add it", rank=1, node=1)
    first, second, *tail = summary_lines(outcome, JobDirectory(tmp_path), RESUME)
    assert first == "failed (InvalidData): train.jsonl:3: no text; add it"
    assert second == f"last lines of {tmp_path}/node-1.log:"
    assert (tail[0], tail[-1]) == ("  line 85", "  line 99")
