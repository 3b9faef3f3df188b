"""The command line, but for what needs agents."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from finetune_operator.cli.main import main

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
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(yaml.safe_dump(JOB, sort_keys=False))
    Path("data.jsonl").touch()
    return "job.yaml"


def test_validate_says_what_is_valid(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", file, file]) == 0
    assert capsys.readouterr().out == "job.yaml: tiny: valid\n" * 2


def test_validate_tells_all_mistakes_of_all_files(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data.jsonl").unlink()
    Path("broken.yaml").write_text("[")
    assert main(["validate", file]) == 0, "the file may well lie where the job will run"
    capsys.readouterr()
    assert main(["validate", "--local", file, "broken.yaml"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "job.yaml:10: spec.data.train[0].source: file://data.jsonl does not exist: correct the address, or put the file there"
    )
    assert second.startswith("broken.yaml:")


@pytest.mark.parametrize(
    ("rows", "mistake"),
    [
        ('{"text": "a"}\n', None),
        ('{"text": "a"}\n{"text": \n', "data.jsonl:2: not valid JSON"),
        ('{"txt": "a"}\n', "data.jsonl:1: "),
        ("", "data.jsonl: the file is empty"),
    ],
)
def test_validate_tries_data_and_storage_where_told(
    rows: str, mistake: str | None, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data.jsonl").write_text(rows)
    assert main(["validate", "--local", file]) == (2 if mistake else 0)
    said = capsys.readouterr().err
    assert mistake is None or mistake in said
    assert said.count("\n") == bool(mistake), "one sentence"


def test_render_prints_the_objects_of_the_operator(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", file]) == 0
    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [(item["kind"], item["metadata"]["name"]) for item in objects] == [
        ("Service", "tiny"), ("ConfigMap", "tiny"), ("Pod", "tiny-0"), ("Pod", "tiny-1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (
            {"metadata": {"name": "second"}},
            "job.yaml holds 2 FineTuneJobs (tiny, second): put the one to run in a file of its own",
        ),
        (None, "spec.checkpoint.storage: pvc://claim/out exists in a cluster only: use file:// for a run on this machine"),
    ],
)
def test_run_refuses_in_one_sentence(
    file: str, change: dict[str, object] | None, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = yaml.safe_dump(JOB).replace("file://out", "pvc://claim/out")
    if change is not None:
        text = f"{yaml.safe_dump(JOB)}---\n{yaml.safe_dump(JOB | change)}"
    Path(file).write_text(text)
    assert main(["run", file]) == 2
    assert capsys.readouterr().err == mistake + "\n"


STATUS = {
    "phase": "Running",
    "workers": {"ready": 2, "desired": 2, "summary": "2/2"},
    "progress": {"step": 50, "totalSteps": 200, "percent": 25, "loss": 2.5},
    "eta": "1m05s",
    "conditions": [
        {"type": "Running", "status": "True", "reason": "PodsReady", "message": "All pods run.", "lastTransitionTime": "2026"}
    ],
}


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that notes its arguments and answers with a job."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    notes = tmp_path / "arguments"
    answer = tmp_path / "answer"
    answer.write_text(json.dumps(JOB | {"status": STATUS}))
    program.write_text(f'#!/bin/sh\necho "$@" >{notes}\ncat {answer}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return notes


def test_status_says_how_a_job_stands(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "tiny", "-n", "research"]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert said[:5] == ["phase Running", "ready 2/2", "step 50/200 (25%)", "loss 2.5", "remaining 1m05s"]
    assert "PodsReady" in said[-1]
    assert kubectl.read_text() == "--namespace=research get finetunejobs.finetune-operator.io tiny --output=json\n"


def test_logs_are_those_of_the_jobs_pods(kubectl: Path) -> None:
    assert main(["logs", "tiny", "-f", "--tail", "5"]) == 0
    assert kubectl.read_text() == (
        "logs --selector=finetune-operator.io/job=tiny --prefix --max-log-requests=64 --tail=5 --follow\n"
    )


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/absent")
    assert main(["status", "tiny"]) == 2
    assert capsys.readouterr().err == "kubectl is not installed, or not on PATH: install it to ask a cluster\n"


def test_the_command_line_imports_neither_torch_nor_kopf() -> None:
    script = (
        "import sys, finetune_operator.cli, finetune_operator.local, finetune_trainer.agent.guard\n"
        "print({'torch', 'kopf', 'kubernetes'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"
