"""Restarts in place that fork the ranks from the spare, with the real trainer."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.support import launch, ranks
from tests.support.agents import ForkServer, RealAgent, is_alive

from finetune_trainer.agent.ports import free_ports
from finetune_trainer.agent.settings import Limits
from finetune_trainer.protocol.outcome import Reason

IS_READY = "a spare process has imported the libraries"


def started_ranks(agent: RealAgent) -> list[int]:
    """The pids of the ranks that were started as new processes."""
    pids = map(int, Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split())
    return [pid for pid in pids if is_alive(pid) and "fork_server" not in Path(f"/proc/{pid}/cmdline").read_text()]


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "storage/model/training/history.jsonl").read_text().splitlines()]


def test_a_killed_rank_is_forked_from_the_spare_and_the_losses_are_equal(fork_server: ForkServer, tmp_path: Path) -> None:
    changes = {"training": {"maxSteps": 30}, "checkpoint": {"everySteps": 5}, "evaluation": {"everySteps": 10}}
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
    assert [result.code for result in ranks.run(launch.run_rank, 2, launch.write_document(calm, **changes))] == [0, 0]
    [port] = free_ports(1)
    # The spare would otherwise let the ranks of a short run finish first.
    limits = Limits(spare_delay=0.0, spare_niceness=os.getpriority(os.PRIO_PROCESS, 0))
    agent = RealAgent(fork_server, launch.write_document(killed, **changes), port, per_node=2, limits=limits)
    try:
        agent.wait_for_log("step 12/30")  # the checkpoint of step 5 was committed before that of step 10 was started
        first = started_ranks(agent)
        for pid in first:  # they would finish before the spare is ready
            os.kill(pid, signal.SIGSTOP)
        agent.wait_for_log(IS_READY)
        os.kill(first[1], signal.SIGKILL)
        os.kill(first[0], signal.SIGCONT)
        agent.wait_for_log("forked from the spare", 2)
        assert agent.wait().reason is Reason.COMPLETE, agent.log
        assert "resumed from step " in agent.log
    finally:
        agent.kill()
    assert history(killed) == history(calm)
