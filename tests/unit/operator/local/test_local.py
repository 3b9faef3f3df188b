"""Local runs: addresses, GPUs, what is shown and what is said in the end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from finetune_operator.api import FineTuneJob
from finetune_operator.local import devices, display, summary
from finetune_operator.local.node_process import Folder
from finetune_operator.local.uris import localized, missing_files
from finetune_trainer.protocol.outcome import DataSummary, Outcome, Progress, Reason, RunStatus, SavedCheckpoint

CHECKPOINT = SavedCheckpoint(step=40, time="2026-01-01T00:00:00Z", uri="file:///out/manifests/step-00000040.json")


def job(**spec: Any) -> FineTuneJob:
    base = {
        "model": {"source": "hf://organisation/model"},
        "data": {"train": [{"source": "file://data/*.jsonl"}]},
        "checkpoint": {"storage": "file://out"},
    }
    return FineTuneJob.model_validate({"metadata": {"name": "tiny"}, "spec": base | spec})


def test_relative_addresses_are_below_the_current_folder() -> None:
    data: dict[str, Any] = {"train": [{"source": "file://a"}, {"source": "s3://b/c"}], "evaluation": [{"source": "file:///d"}]}
    translators = {"forward": {"source": "file://there"}, "back": {"source": "hf://a/back"}}
    data["augmentation"] = {"synonyms": {"source": "file://w.json"}, "backTranslation": translators}
    method = {"type": "LoRA", "lora": {"frozenAdapters": [{"source": "file://one"}]}}
    spec = (
        job(data=data, model={"source": "file://./m"}, method=method, export={"storage": "file://e"})
        .spec.train_spec()
        .document()
    )
    found = localized(spec, Path("/here"))
    assert [dataset["source"] for dataset in found["data"]["train"]] == ["file:///here/a", "s3://b/c"]
    assert found["data"]["evaluation"][0]["source"] == "file:///d"
    augmentation = found["data"]["augmentation"]
    assert augmentation["synonyms"]["source"] == "file:///here/w.json"
    assert [augmentation["backTranslation"][way]["source"] for way in translators] == ["file:///here/there", "hf://a/back"]
    assert found["method"]["lora"]["frozenAdapters"][0]["source"] == "file:///here/one"
    assert found["model"]["source"] == "file:///here/m"
    assert (found["checkpoint"]["storage"], found["export"]["storage"]) == ("file:///here/out", "file:///here/e")


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("file://data.jsonl", False),
        ("file://folder", False),
        ("file://folder/*.jsonl", False),
        ("file://**/b.jsonl", False),
        ("file://folder/*.csv", True),
        ("file://absent", True),
        ("s3://absent/absent", False),
    ],
)
def test_files_to_read_must_be_there(tmp_path: Path, source: str, missing: bool) -> None:
    (tmp_path / "data.jsonl").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.jsonl").touch()
    found = missing_files(job(data={"train": [{"source": "s3://b/c"}, {"source": source}]}), tmp_path)
    assert [location for location, _ in found] == ([("spec", "data", "train", 1, "source")] if missing else [])


@pytest.mark.parametrize(
    ("visible", "nodes", "per_node", "shares"),
    [
        ("0,1,2,3", 2, 2, ["0,1", "2,3"]),
        ("GPU-a,GPU-b", 2, 1, ["GPU-a", "GPU-b"]),
        ("0,1,2,3", 1, 2, ["0,1"]),
        ("0", 2, 1, ["", ""]),
        ("", 2, 1, ["", ""]),
        ("-1", 1, 1, [""]),
    ],
)
def test_each_rank_has_a_gpu_or_none_has(visible: str, nodes: int, per_node: int, shares: list[str]) -> None:
    environments = devices.node_environments(nodes, per_node, {"CUDA_VISIBLE_DEVICES": visible})
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == shares


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (42.4, "42s"), (60, "1m00s"), (185, "3m05s"), (3725, "1h02m")])
def test_durations_are_as_people_write_them(seconds: float, text: str) -> None:
    assert display.duration(seconds) == text


RUNNING = RunStatus(
    activity="Training",
    progress=Progress(
        step=40, total_steps=200, percent=20, remaining_seconds=65, tokens_per_second=1234.5, loss=2.5, eval_loss=2.75
    ),
    checkpoint=CHECKPOINT,
    in_place_restarts=1,
)


def test_the_bar_shows_how_far_preparing_is() -> None:
    output = io.StringIO()
    screen = display.display(Console(file=output, force_terminal=True, width=160))
    screen.show(RunStatus(activity="Preparing", detail="1,500 of 2,000 rows encoded", share=0.75))
    screen.close()
    assert "75/100 %" in output.getvalue()
    assert "1,500 of 2,000 rows encoded" in output.getvalue()


def test_a_terminal_gets_a_bar_and_a_file_gets_lines() -> None:
    for terminal in (True, False):
        output = io.StringIO()
        screen = display.display(Console(file=output, force_terminal=terminal, width=160))
        screen.show(RunStatus())
        screen.show(RunStatus(activity="Preparing", detail="1,500 of 2,000 rows encoded", share=0.75))
        screen.show(RUNNING)
        screen.show(RUNNING)
        screen.note("a note")
        screen.close()
        said = output.getvalue()
        facts = "loss 2.5000 · eval loss 2.7500 · 1,234 tokens/s · checkpoint of step 40 · restarts: 1 · 1m05s left"
        if terminal:
            assert "40/200" in said
            assert facts.split(" · ", maxsplit=1)[0] in said
        else:
            assert said == f"Starting\nPreparing · 1,500 of 2,000 rows encoded\nTraining · step 40/200 · {facts}\na note\n"


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [
        ([Reason.COMPLETE, Reason.COMPLETE], Reason.COMPLETE),
        ([Reason.PREEMPTED, Reason.PREEMPTED], Reason.PREEMPTED),
        ([Reason.PREEMPTED, Reason.PREEMPTED_UNSAVED], Reason.PREEMPTED_UNSAVED),
        ([Reason.PREEMPTED, Reason.CRASHED], Reason.CRASHED),
        ([Reason.COMPLETE, Reason.CRASHED], Reason.COMPLETE),
    ],
)
def test_the_runs_outcome_is_the_worst_unless_node_0_completed(nodes: list[Reason], chosen: Reason) -> None:
    outcomes = [Outcome(reason=reason) for reason in nodes]
    outcomes[0] = outcomes[0].model_copy(update={"progress": Progress(step=41), "checkpoint": CHECKPOINT})
    found = summary.of_the_run(outcomes)
    assert (found.reason, found.progress.step, found.checkpoint) == (chosen, 41, CHECKPOINT)


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            Outcome(reason=Reason.PREEMPTED, progress=Progress(step=40), checkpoint=CHECKPOINT),
            "stopped at step 40 with a checkpoint; the same command resumes: AGAIN",
        ),
        (Outcome(reason=Reason.PREEMPTED), "stopped before the first step; the same command resumes: AGAIN"),
        (
            Outcome(reason=Reason.PREEMPTED_UNSAVED, progress=Progress(step=45), checkpoint=CHECKPOINT),
            "stopped at step 45; the work since the checkpoint of step 40 is lost; the same command resumes: AGAIN",
        ),
        (
            Outcome(reason=Reason.PREEMPTED_UNSAVED),
            "stopped without a checkpoint; the same command resumes: AGAIN",
        ),
    ],
)
def test_a_stopped_run_says_how_to_go_on(outcome: Outcome, line: str, tmp_path: Path) -> None:
    assert summary.lines(outcome, Folder(tmp_path), "AGAIN") == [line]


def test_a_finished_run_shows_what_it_made(tmp_path: Path) -> None:
    reports = tmp_path / "model" / "training"
    reports.mkdir(parents=True)
    (reports / "loss.png").touch()
    (reports / "samples.json").write_text(json.dumps([{"prompt": "import ", "continuation": "os\n"}]))
    told = {"stoppedEarly": "evaluation loss has not improved", "fit": {"kind": "Settled", "sentence": "settled: so it is"}}
    (reports / "report.json").write_text(json.dumps(told))
    outcome = Outcome(
        reason=Reason.COMPLETE,
        progress=Progress(step=200, loss=2.0),
        metrics={"evalLoss": 1.0},
        data=DataSummary(findings=["1 of 5 training rows with personal data"]),
        model=f"file://{tmp_path}/model",
    )
    assert summary.lines(outcome, Folder(tmp_path), "again") == [
        "finished after 200 steps",
        "  loss        2.0000",
        "  eval loss   1.0000",
        "  perplexity  2.7183",
        "  data        1 of 5 training rows with personal data",
        f"  model       {tmp_path}/model",
        f"  loss plot   {tmp_path}/model/training/loss.png",
        "  stopped     evaluation loss has not improved",
        "  diagnosis   settled: so it is",
        "  sample      'import ' goes on with 'os\\n'",
    ]


def test_a_failed_run_shows_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "node-1.log").write_text("".join(f"line {number}\n" for number in range(100)))
    outcome = Outcome(reason=Reason.INVALID_DATA, message="train.jsonl:3: no text; add it", rank=1, node=1)
    first, second, *tail = summary.lines(outcome, Folder(tmp_path), "again")
    assert first == "failed (InvalidData): train.jsonl:3: no text; add it"
    assert second == f"{tmp_path}/node-1.log ends with:"
    assert (tail[0], tail[-1]) == ("  line 85", "  line 99")
