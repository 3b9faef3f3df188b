"""The commands of the command line, except for runs of agents."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune_operator import local
from finetune_operator.cli.main import main
from finetune_operator.local.trainer_commands import DataCheck

JOB = {
    "apiVersion": "finetune-operator.io/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "tiny"},
    "spec": {
        "model": {"source": "hf://organisation/model"},
        "data": {"train": [{"source": "file://data.jsonl"}]},
        "checkpoint": {"storage": "file://out"},
        "workers": {"nodes": 2},
    },
}


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(yaml.safe_dump(JOB, sort_keys=False))
    Path("data.jsonl").touch()
    return "job.yaml"


def test_validate_lists_valid_jobs(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", job_file, job_file]) == 0
    assert capsys.readouterr().out == "job.yaml: tiny: valid\n" * 2


def test_validate_reports_the_errors_of_all_files(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data.jsonl").unlink()
    Path("broken.yaml").write_text("[")
    assert main(["validate", job_file]) == 0, "the data may exist where the job will run"
    capsys.readouterr()
    assert main(["validate", "--local", job_file, "broken.yaml"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "job.yaml:10: spec.data.train[0].source: file://data.jsonl does not exist: correct the path, or put the file there"
    )
    assert second.startswith("broken.yaml:")


def test_validate_checks_the_change_from_a_previous_document(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    stored = JOB | {"status": {"phase": "of another version"}}
    Path("old.yaml").write_text(yaml.safe_dump(stored, sort_keys=False))
    assert main(["validate", job_file, "--previous", "old.yaml"]) == 0
    Path(job_file).write_text(Path(job_file).read_text().replace("nodes: 2", "nodes: 4"))
    capsys.readouterr()
    assert main(["validate", job_file, "--previous", "old.yaml"]) == 2
    assert capsys.readouterr().err == (
        "job.yaml:14: spec.workers.nodes: nodes can change only while the job is suspended: set runPolicy.suspend: true first, "
        "or create the job with minNodes\n"
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"text": "a"}\n', None),
        ('{"text": "a"}\n{"text": \n', "data.jsonl:2: not valid JSON"),
        ('{"txt": "a"}\n', "data.jsonl:1: "),
        ("", "data.jsonl: the file is empty"),
    ],
    ids=["valid", "invalid-json", "wrong-column", "empty"],
)
def test_validate_local_checks_data_and_storage(
    rows: str, message: str | None, job_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data.jsonl").write_text(rows)
    assert main(["validate", "--local", job_file]) == (2 if message else 0)
    errors = capsys.readouterr().err
    assert message is None or message in errors
    assert errors.count("\n") == bool(message), "one sentence"


@pytest.mark.parametrize(("error", "code"), [(None, 0), ("data.jsonl:7: no text: add one", 2)])
def test_validate_data_prints_findings_and_the_error(
    error: str | None, code: int, job_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "check_data", lambda *_: DataCheck(["3 of 6 rows repeat an earlier one"], error))
    assert main(["validate", "--data", job_file]) == code
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == "tiny: 3 of 6 rows repeat an earlier one"
    assert output.out.endswith("job.yaml: tiny: valid\n") == (error is None)
    assert output.err == (f"tiny: {error}\n" if error else "")


@pytest.mark.parametrize("options", [["--rows", "51"], ["--rows", "-1"], ["--sample", "0"], ["--sample", "5", "--all"]])
def test_data_refuses_options_that_make_no_sense(options: list[str], job_file: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["data", job_file, *options])


def test_render_prints_the_objects_of_a_job(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", job_file]) == 0
    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [(item["kind"], item["metadata"]["name"]) for item in objects] == [
        ("Service", "finetune-trainers"), ("Pod", "tiny-0"), ("Pod", "tiny-1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"metadata": {"name": "second"}},
            "job.yaml contains 2 FineTuneJobs (tiny, second): put the one to use in its own file",
        ),
        (None, "spec.checkpoint.storage: pvc://claim/out exists in a cluster only: use file:// to run on this machine"),
    ],
    ids=["two-jobs", "persistent-volume-claim"],
)
def test_run_rejects_a_job_in_one_sentence(
    job_file: str, change: dict[str, object] | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = yaml.safe_dump(JOB).replace("file://out", "pvc://claim/out")
    if change is not None:
        text = f"{yaml.safe_dump(JOB)}---\n{yaml.safe_dump(JOB | change)}"
    Path(job_file).write_text(text)
    assert main(["run", job_file]) == 2
    assert capsys.readouterr().err == message + "\n"


STATUS = {
    "phase": "Running",
    "reason": "CheckpointSaveFailed",
    "workers": {"ready": 2, "desired": 2, "summary": "2/2"},
    "progress": {"step": 50, "totalSteps": 200, "percent": 25, "loss": 2.5},
    "eta": "1m05s",
    "conditions": [
        {
            "type": "Running",
            "status": "True",
            "reason": "PodsReady",
            "message": "All pods run.",
            "lastTransitionTime": "2026-01-01T12:00:00Z",
        }
    ],
}


@pytest.fixture
def kubectl_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs a kubectl that prints a job; returns the file to which it writes its arguments."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    arguments = tmp_path / "arguments"
    answer = tmp_path / "answer"
    answer.write_text(json.dumps(JOB | {"status": STATUS}))
    program.write_text(f'#!/bin/sh\necho "$@" >{arguments}\ncat {answer}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return arguments


def test_status_prints_progress_and_conditions(kubectl_arguments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "tiny", "-n", "research"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["phase Running", "reason CheckpointSaveFailed", "ready 2/2"]
    assert lines[3:6] == ["step 50/200 (25%)", "loss 2.5", "remaining 1m05s"]
    assert "PodsReady" in lines[-1]
    arguments = kubectl_arguments.read_text()
    assert arguments == "--namespace=research get finetunejobs.finetune-operator.io tiny --output=json\n"


def test_logs_selects_the_pods_of_the_job(kubectl_arguments: Path) -> None:
    assert main(["logs", "tiny", "-f", "--tail", "5"]) == 0
    assert kubectl_arguments.read_text() == (
        "logs --selector=finetune-operator.io/job=tiny --prefix --max-log-requests=64 --tail=5 --follow\n"
    )


def test_reports_that_kubectl_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/absent")
    assert main(["status", "tiny"]) == 2
    assert capsys.readouterr().err == "kubectl is not installed or not on PATH: install it to query a cluster\n"


def test_imports_neither_torch_nor_kopf() -> None:
    script = (
        "import sys, finetune_operator.cli.main, finetune_operator.local, finetune_trainer.agent.guard\n"
        "print({'torch', 'kopf', 'kubernetes'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
