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
            Outcome(reason=Reason.PREEMPTED, message="stopped at step 40; its checkpoint is stored", checkpoint=CHECKPOINT),
            "stopped at step 40; its checkpoint is stored; resume with: finetune run job.yaml",
        ),
        (Outcome(reason=Reason.PREEMPTED), "stopped before the first step; resume with: finetune run job.yaml"),
        (
            Outcome(reason=Reason.PREEMPTED_UNSAVED, progress=Progress(step=45), checkpoint=CHECKPOINT),
            "stopped at step 45; the work since the checkpoint at step 40 is lost; resume with: finetune run job.yaml",
        ),
        (
            Outcome(
                reason=Reason.PREEMPTED_UNSAVED, message="rank 0 was killed", progress=Progress(step=40), checkpoint=CHECKPOINT
            ),
            "stopped at once; the checkpoint of step 40, the last one, is stored; resume with: finetune run job.yaml",
        ),
        (
            Outcome(
                reason=Reason.PREEMPTED_UNSAVED, message="the disk is full", progress=Progress(step=50), checkpoint=CHECKPOINT
            ),
            "the disk is full; the newest checkpoint is that of step 40; resume with: finetune run job.yaml",
        ),
        (
            Outcome(reason=Reason.PREEMPTED_UNSAVED),
            "stopped without a checkpoint; resume with: finetune run job.yaml",
        ),
    ],
    ids=[
        "with-checkpoint",
        "before-first-step",
        "unsaved",
        "at-once-after-a-checkpoint",
        "unsaved-with-a-cause",
        "without-checkpoint",
    ],
)
def test_stopped_run_prints_the_command_that_resumes_it(outcome: Outcome, line: str, tmp_path: Path) -> None:
    assert summary_lines(outcome, JobDirectory(tmp_path), RESUME) == [line]


def test_finished_run_prints_metrics_and_paths(tmp_path: Path) -> None:
    reports = tmp_path / "model" / "training"
    reports.mkdir(parents=True)
    for name in ("loss.png", "data.html"):
        (reports / name).touch()
    (reports / "samples.json").write_text(json.dumps([{"prompt": "import ", "continuation": "os\n"}]))
    report = {"stoppedEarly": "evaluation loss has not improved", "fit": {"kind": "Settled", "sentence": "settled: so it is"}}
    (reports / "report.json").write_text(json.dumps(report))
    outcome = Outcome(
        reason=Reason.COMPLETE,
        progress=Progress(step=200, loss=2.0),
        metrics={"evalLoss": 1.0, "perplexity": 2.71828},
        data=DataSummary(findings=["1 of 5 training rows with personal data"]),
        model=f"file://{tmp_path}/model",
        resumed="the run is prolonged from 100 to 200 steps: the learning rate stays at 1",
    )
    assert summary_lines(outcome, JobDirectory(tmp_path), RESUME) == [
        "finished after 200 steps",
        "  resumed     the run is prolonged from 100 to 200 steps: the learning rate stays at 1",
        "  loss        2.0000",
        "  eval loss   1.0000",
        "  perplexity  2.7183",
        "  data        1 of 5 training rows with personal data",
        f"  model       {tmp_path}/model",
        f"  loss plot   {tmp_path}/model/training/loss.png",
        f"  data page   {tmp_path}/model/training/data.html",
        "  stopped     evaluation loss has not improved",
        "  diagnosis   settled: so it is",
        "  sample      'import ' continues with 'os\\n'",
    ]


def test_a_failure_with_a_known_cause_is_printed_once_with_the_log(tmp_path: Path) -> None:
    (tmp_path / "node-1.log").write_text("rank 1 ERROR InvalidData: train.jsonl:3: no text; add it\n")
    outcome = Outcome(reason=Reason.INVALID_DATA, message="train.jsonl:3: no text; add it", rank=1, node=1)
    assert summary_lines(outcome, JobDirectory(tmp_path), RESUME) == [
        "failed (InvalidData): train.jsonl:3: no text; add it",
        f"log: {tmp_path}/node-1.log",
    ]


LOG = """Traceback (most recent call last):
KeyError: of an earlier run
2026-01-01T00:00:00 agent 0: round 7: waiting for 1 nodes
2026-01-01T00:00:00 agent 0: round 7: starting 1 ranks; master is localhost:1
2026-01-01 00:00:01,000 rank 0 INFO a line
2026-01-01 00:00:02,000 rank 0 ERROR Crashed: an unexpected error: KeyError: 'a'
Traceback (most recent call last):
  File "x.py", line 1, in f
KeyError: 'a'
2026-01-01T00:00:02 agent 0: Crashed: an unexpected error: KeyError: 'a'
2026-01-01T00:00:02 agent 0: ended: Crashed: an unexpected error: KeyError: 'a'
"""


def test_an_unexpected_error_is_printed_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "node-0.log").write_text(LOG)
    outcome = Outcome(reason=Reason.CRASHED, message="an unexpected error: KeyError: 'a'")
    assert summary_lines(outcome, JobDirectory(tmp_path), RESUME) == [
        "failed (Crashed): an unexpected error: KeyError: 'a'",
        "  Traceback (most recent call last):",
        '    File "x.py", line 1, in f',
        "  KeyError: 'a'",
        f"log: {tmp_path}/node-0.log",
    ]


def test_a_crash_without_a_traceback_is_printed_with_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "node-0.log").write_text("".join(f"line {number}\n" for number in range(100)))
    outcome = Outcome(reason=Reason.CRASHED, message="rank 0 was killed by signal 11")
    first, *tail, last = summary_lines(outcome, JobDirectory(tmp_path), RESUME)
    assert first == "failed (Crashed): rank 0 was killed by signal 11"
    assert tail == [f"  line {number}" for number in range(85, 100)]
    assert last == f"log: {tmp_path}/node-0.log"
