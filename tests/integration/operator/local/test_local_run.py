"""`finetune run` with real agents and ranks that are `fake_rank`."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import FAKE_RANK
from tests.support.waiting import wait_for

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


def start_run(folder: Path, rank_behavior: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "finetune_operator.cli", "run", "job.yaml", "--rank-module", "fake_rank"]
    environment = os.environ | {"PYTHONPATH": str(FAKE_RANK), "FAKE_RANK": rank_behavior, "COLUMNS": "120"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **(pipes | options))


def test_stops_on_ctrl_c_and_rejects_a_second_run_of_the_job(folder: Path) -> None:
    run = start_run(folder, "train")
    wait_for((folder / ".finetune/cache/attempt-0-0").exists, "the rank")
    second = start_run(folder, "train")
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 2
    assert output == (
        f"tiny is already running with its state in {folder}/.finetune/tiny: wait until it ends, or stop it with Ctrl-C in its "
        "terminal\n"
    )
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 10
    lines = output.splitlines()
    assert lines[0].startswith("tiny: 1 node, 1 rank, on the CPU; logs in ")
    assert "stopping after a checkpoint; press Ctrl-C again to stop without one" in lines
    assert lines[-1] == "rank 0 stored a checkpoint; resume with: finetune run job.yaml"


def test_a_killed_run_starts_again_after_its_agents_have_stopped(folder: Path) -> None:
    killed = start_run(folder, "train")
    wait_for((folder / ".finetune/cache/attempt-0-0").exists, "the rank")
    killed.kill()
    killed.wait()
    again = start_run(folder, "train")
    wait_for((folder / ".finetune/cache/attempt-0-1").exists, "the rank of the second run")
    again.send_signal(signal.SIGINT)
    output, _ = again.communicate(timeout=30)
    killed.communicate()
    assert again.returncode == 10, output
    assert "tiny is already running" not in output


def test_prints_a_failure_once_and_the_path_of_the_log_in_a_terminal(folder: Path) -> None:
    ours, theirs = pty.openpty()
    run = start_run(folder, "fail:InvalidData:0.5", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    content = b""
    while chunk := read_chunk(ours):
        content += chunk
    os.close(ours)
    assert run.wait(30) == 3
    output = content.decode().replace("\r\n", "\n")
    assert "Starting" in output
    assert "failed (InvalidData): rank 0 reports InvalidData\n" in output
    assert output.count("rank 0 reports InvalidData") == 1
    assert output.rstrip().endswith(f"log: {folder}/.finetune/tiny/node-0.log")


def read_chunk(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # raised at the end of a terminal whose other side is closed
        return b""


def test_ends_the_run_when_its_agents_are_killed(folder: Path) -> None:
    run = start_run(folder, "train")
    wait_for((folder / ".finetune/cache/attempt-0-0").exists, "the rank")
    agent = child_of(run.pid)
    os.kill(agent, signal.SIGKILL)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 1
    assert "failed (Crashed): the agent of node 0 was killed by signal 9; see its log\n" in output


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])
