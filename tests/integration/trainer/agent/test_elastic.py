"""An elastic run with the real trainer: from two nodes to one and back, by replacing the first agent alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import launch, ranks

from finetune_trainer.agent.ports import free_ports
from finetune_trainer.protocol.outcome import Outcome, Reason

TIMEOUT_SECONDS = 600
STEPS = 40


class Node:
    """The agents of one node, one after the other, each with one rank."""

    def __init__(self, folder: Path, index: int, rendezvous_port: int) -> None:
        self.folder, self.index, self.rendezvous_port = folder, index, rendezvous_port
        self.termination_log = folder / f"termination-{index}"
        self.starts = 0
        self.log_file = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, nodes: int) -> None:
        """Start an agent for a run on this many nodes."""
        self.starts += 1
        self.log_file = self.folder / f"agent-{self.index}-{self.starts}.log"
        command = [
            sys.executable, "-m", "finetune_trainer.agent", "--document", str(self.folder / "train.json"),
            "--job", "tests/elastic", "--node-rank", str(self.index), "--nodes", str(nodes), "--processes-per-node", "1",
            "--rendezvous", f"127.0.0.1:{self.rendezvous_port}", "--work-dir", str(self.folder / f"work-{self.index}"),
            "--cache-dir", str(self.folder / "cache"), "--http-port", "0", "--termination-log", str(self.termination_log),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def wait_for_log(self, text: str) -> None:
        """Wait until the log of the present agent and its rank has a text."""
        assert self.process is not None
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while text not in self.log_file.read_text():
            assert self.process.poll() is None, self.log_file.read_text()
            assert time.monotonic() < deadline, self.log_file.read_text()
            time.sleep(0.02)

    def outcome(self) -> Outcome:
        """The outcome of the present agent, when it ends."""
        assert self.process is not None
        self.process.wait(TIMEOUT_SECONDS)
        return Outcome.model_validate_json(self.termination_log.read_bytes())

    def stop(self) -> Outcome:
        """Stop the agent as the deletion of its pod does; returns its outcome."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.outcome()


@contextmanager
def two_nodes(folder: Path) -> Iterator[list[Node]]:
    """Two nodes whose agents are started by the test, and stopped at its end."""
    [port] = free_ports(1)
    nodes = [Node(folder, index, port) for index in (0, 1)]
    try:
        yield nodes
    finally:
        for node in nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()


def losses(folder: Path) -> dict[int, float]:
    """The training loss of every step."""
    points = map(json.loads, (folder / "storage/model/training/history.jsonl").read_text().splitlines())
    return {point["step"]: point["loss"] for point in points if "loss" in point}


@pytest.mark.timeout(1200)
def test_two_nodes_one_node_two_nodes(tmp_path: Path) -> None:
    changes = {"training": {"maxSteps": STEPS}, "checkpoint": {"everySteps": 1000}, "evaluation": {"everySteps": 20}}
    calm, elastic = tmp_path / "calm", tmp_path / "elastic"
    for folder in (calm, elastic):
        folder.mkdir()
        launch.write_document(folder, **changes)
    assert [result.code for result in ranks.run(launch.run_rank, 2, calm / "train.json")] == [0, 0]
    with two_nodes(elastic) as (first, second):
        first.start(2)
        second.start(2)
        first.wait_for_log(f"step 5/{STEPS}")
        assert first.stop().reason is Reason.PREEMPTED, first.log_file.read_text()
        first.start(1)
        first.wait_for_log("resumed from step ")
        first.wait_for_log(f"step 15/{STEPS}")
        assert first.stop().reason is Reason.PREEMPTED, first.log_file.read_text()
        first.start(2)
        outcomes = [first.outcome(), second.outcome()]
        assert [outcome.reason for outcome in outcomes] == [Reason.COMPLETE, Reason.COMPLETE], first.log_file.read_text()
        assert "resumed from step " in first.log_file.read_text()
        assert second.starts == 1, "the second agent waited for the run"
    assert losses(elastic) == pytest.approx(losses(calm), rel=1e-3)
    assert len(losses(elastic)) == STEPS
