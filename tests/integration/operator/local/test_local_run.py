"""`finetune run` as a person starts it: agents are real, ranks are `fake_rank`."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import FAKE_RANK, wait_for

JOB = """
apiVersion: finetune-operator.io/v1alpha1
kind: FineTuneJob
metadata: {name: tiny}
spec:
  model: {initialization: Scratch, config: {model_type: llama}, tokenizer: {train: {vocabSize: 300}}}
  data: {train: [{source: "file://data.jsonl"}]}
  checkpoint: {storage: "file://out"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "data.jsonl").write_text('{"text": "hello"}\n')
    return tmp_path


def start(folder: Path, behaviour: str, **options: Any) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "finetune_operator.cli", "run", "job.yaml", "--rank-module", "fake_rank"]
    environment = os.environ | {"PYTHONPATH": str(FAKE_RANK), "FAKE_RANK": behaviour, "COLUMNS": "120"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=folder, env=environment, **(pipes | options))


def test_ctrl_c_stops_with_a_checkpoint_and_a_second_run_of_the_job_is_refused(folder: Path) -> None:
    run = start(folder, "train")
    wait_for((folder / ".finetune/cache/life-0-0").exists, "the rank")
    second = start(folder, "train")
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 2
    assert said == (
        f"tiny runs already with its state in {folder}/.finetune/tiny: wait for its end, or stop it with Ctrl-C where it runs\n"
    )
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=30)
    assert run.returncode == 10
    lines = said.splitlines()
    assert lines[0].startswith("tiny: 1 node, 1 rank, on the CPU; logs in ")
    assert "stopping after a checkpoint; Ctrl-C once more does not wait for it" in lines
    assert lines[-1] == "stopped at step 7; the same command resumes: finetune run job.yaml"


def test_a_failure_in_a_terminal_names_its_reason_and_the_log(folder: Path) -> None:
    ours, theirs = pty.openpty()
    run = start(folder, "fail:InvalidData:0.5", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    assert run.wait(30) == 3
    said = output.decode().replace("\r\n", "\n")
    assert "Starting" in said
    assert "failed (InvalidData): rank 0 says InvalidData\n" in said
    assert f"{folder}/.finetune/tiny/node-0.log ends with:\n" in said
    assert said.rstrip().endswith("agent 0: the end: InvalidData: rank 0 says InvalidData")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how a terminal ends whose other side is gone
        return b""


def test_killed_agents_end_the_run(folder: Path) -> None:
    run = start(folder, "train")
    wait_for((folder / ".finetune/cache/life-0-0").exists, "the rank")
    agent = _child_of(run.pid)
    os.kill(agent, signal.SIGKILL)
    said, _ = run.communicate(timeout=30)
    assert run.returncode == 1
    assert "failed (Crashed): the agent of node 0 was killed by signal 9; see its log\n" in said


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])
