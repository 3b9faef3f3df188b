"""Restarts in place that fork the ranks from the spare, with the real trainer."""

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
from typing import Any

from tests.support import agent_with_eager_spare, launch, ranks
from tests.support.agents import is_alive

from finetune_trainer.agent.ports import free_ports
from finetune_trainer.protocol.outcome import Outcome, Reason

TIMEOUT_SECONDS = 600
IS_READY = "a spare process has imported the libraries"


class RealAgent:
    """An agent with two real ranks on this machine."""

    def __init__(self, folder: Path, document: Path, cache: Path) -> None:
        self.log_file = folder / "agent.log"
        self.termination_log = folder / "termination"
        port, self.http_port = free_ports(2)
        command = [
            sys.executable, "-P", agent_with_eager_spare.__file__, "--document", str(document), "--job", "tests/tiny",
            "--node-rank", "0", "--nodes", "1", "--processes-per-node", "2", "--rendezvous", f"127.0.0.1:{port}",
            "--work-dir", str(folder / "work"), "--cache-dir", str(cache), "--http-port", str(self.http_port),
            "--termination-log", str(self.termination_log),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def children(self) -> dict[int, str]:
        """The command line of every living child process."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in pids if is_alive(int(pid))}

    def ranks(self) -> list[int]:
        """The pids of the ranks that were started as new processes."""
        return [pid for pid, command in self.children().items() if "fork_server" not in command]

    def wait_for_log(self, text: str, count: int = 1) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.log.count(text) < count:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def outcome(self) -> Outcome:
        self.process.wait(TIMEOUT_SECONDS)
        return Outcome.model_validate_json(self.termination_log.read_bytes())


@contextmanager
def started_agent(folder: Path, document: Path, cache: Path) -> Iterator[RealAgent]:
    agent = RealAgent(folder, document, cache)
    try:
        yield agent
    finally:
        agent.process.kill()
        agent.process.wait()


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "storage/model/training/history.jsonl").read_text().splitlines()]


def test_a_killed_rank_is_forked_from_the_spare_and_the_losses_are_equal(tmp_path: Path) -> None:
    changes = {"training": {"maxSteps": 30}, "checkpoint": {"everySteps": 5}, "evaluation": {"everySteps": 10}}
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
    assert [result.code for result in ranks.run(launch.run_rank, 2, launch.write_document(calm, **changes))] == [0, 0]
    with started_agent(killed, launch.write_document(killed, **changes), tmp_path / "cache") as agent:
        agent.wait_for_log("step 12/30")  # the checkpoint of step 5 was committed before that of step 10 was started
        first = agent.ranks()
        for pid in first:  # they would finish before the spare is ready
            os.kill(pid, signal.SIGSTOP)
        agent.wait_for_log(IS_READY)
        os.kill(first[1], signal.SIGKILL)
        os.kill(first[0], signal.SIGCONT)
        agent.wait_for_log("forked from the spare", 2)
        outcome = agent.outcome()
        assert outcome.reason is Reason.COMPLETE, agent.log
        assert "resumed from step " in agent.log
    assert history(killed) == history(calm)
