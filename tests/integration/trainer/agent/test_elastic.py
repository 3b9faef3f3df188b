"""An elastic run with the real trainer: from two nodes to one and back, by replacing the first agent alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import launch, ranks
from tests.support.agents import ForkServer, RealAgent

from finetune_trainer.agent.ports import free_ports
from finetune_trainer.agent.settings import Limits
from finetune_trainer.protocol.outcome import Reason

STEPS = 40
LIMITS = Limits(spare_delay=3600.0)  # no rank restarts in place
StartAgent = Callable[[Path, int, int], RealAgent]


@pytest.fixture
def start(fork_server: ForkServer) -> Iterator[StartAgent]:
    """Start the agent of a node, with one rank, for a run of a document on this many nodes."""
    [port] = free_ports(1)
    agents = []

    def start_agent(document: Path, node: int, nodes: int) -> RealAgent:
        agents.append(RealAgent(fork_server, document, port, node=node, nodes=nodes, limits=LIMITS))
        return agents[-1]

    yield start_agent
    for agent in agents:
        agent.kill()


def losses(folder: Path) -> dict[int, float]:
    """The training loss of every step."""
    points = map(json.loads, (folder / "storage/model/training/history.jsonl").read_text().splitlines())
    return {point["step"]: point["loss"] for point in points if "loss" in point}


@pytest.mark.timeout(1200)
def test_two_nodes_one_node_two_nodes(start: StartAgent, tmp_path: Path) -> None:
    changes = {"training": {"maxSteps": STEPS}, "checkpoint": {"everySteps": 1000}, "evaluation": {"everySteps": 20}}
    calm, elastic = tmp_path / "calm", tmp_path / "elastic"
    for folder in (calm, elastic):
        folder.mkdir()
        launch.write_document(folder, **changes)
    assert [result.code for result in ranks.run(launch.run_rank, 2, calm / "train.json")] == [0, 0]
    document = elastic / "train.json"
    first, second = start(document, 0, 2), start(document, 1, 2)
    first.wait_for_log(f"step 5/{STEPS}")
    assert first.stop().reason is Reason.PREEMPTED, first.log
    first = start(document, 0, 1)
    first.wait_for_log("resumed from step ")
    first.wait_for_log(f"step 15/{STEPS}")
    assert first.stop().reason is Reason.PREEMPTED, first.log
    first = start(document, 0, 2)
    # The second agent has waited for the run meanwhile.
    assert [agent.wait().reason for agent in (first, second)] == [Reason.COMPLETE, Reason.COMPLETE], first.log
    assert "resumed from step " in first.log
    assert losses(elastic) == pytest.approx(losses(calm), rel=1e-3)
    assert len(losses(elastic)) == STEPS
