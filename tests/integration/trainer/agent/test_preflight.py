"""The preflight check of real agents, which measure their nodes and the network between them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.support.agents import CreateCluster, outcomes
from tests.support.waiting import wait_for

from finetune_trainer.config.preflight import PreflightConfig
from finetune_trainer.protocol.outcome import Reason

CONFIG = PreflightConfig(timeout_seconds=120)
CHECK_SECONDS = 120
"""Measuring takes seconds, but each process imports torch first."""
UNEQUAL = PreflightConfig(timeout_seconds=120, minimum_ratio=0.001)  # for real speeds on a machine with other work


def measured(folder: Path, node: int) -> list[str]:
    """The measurements of a node's last check."""
    path = folder / f"work-{node}/preflight.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line.startswith("{")]  # gloo writes lines of its own


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("victim", "fault", "problem"),
    [
        (1, 0.1, "matrix products of 0.1 TFLOP/s are below 0.5 of the median of the others, 1 TFLOP/s"),
        pytest.param(0, "wrong", "device 0 computes wrong matrix products", marks=pytest.mark.slow),
    ],
    ids=["slow node", "wrong first node"],
)
def test_a_node_that_fails_leaves_and_the_others_wait_for_its_replacement(
    create_cluster: CreateCluster, tmp_path: Path, victim: int, fault: float | str, problem: str
) -> None:
    (tmp_path / "benchmark.json").write_text(json.dumps({victim: fault}))
    cluster = create_cluster({0: ["train"], 1: ["train"]}, preflight=CONFIG)
    agents = cluster.start_all()
    wait_for(lambda: agents[victim].has_ended, "the end of the failing agent", CHECK_SECONDS)
    outcome = agents[victim].wait()
    assert (outcome.reason, outcome.node) == (Reason.PREFLIGHT_FAILED, victim)
    assert outcome.message == f"preflight check of node {victim}: {problem}"
    assert [cluster.attempts(rank) for rank in (0, 1)] == [0, 0], "no rank has started"
    agents[victim] = cluster.start(victim)
    wait_for(lambda: cluster.attempts(0), "a rank", CHECK_SECONDS)
    cluster.finish()
    assert outcomes(agents) == [(Reason.COMPLETE, None, None)] * 2


@pytest.mark.timeout(400)
def test_nodes_are_measured_at_every_size_of_a_run_and_not_at_restarts_in_place(
    create_cluster: CreateCluster, tmp_path: Path
) -> None:
    """A smaller run leaves the third agent waiting, so its check must not wait for that one. Then the run grows again."""
    (tmp_path / "benchmark.json").write_text("{}")
    cluster = create_cluster({0: ["train"], 1: ["train"], 2: ["train"]}, nodes=3, preflight=UNEQUAL)
    agents = cluster.start_all()
    wait_for(lambda: cluster.attempts(0), "a rank", CHECK_SECONDS)
    first = cluster.record(0, 0)
    for node in range(3):
        lines = [json.loads(line) for line in measured(tmp_path, node)]
        assert [sorted(line) for line in lines[:1]] == [["device", "isExact", "memoryBandwidth", "teraflops"]]
        assert sorted(line["peer"] for line in lines[1:]) == [peer for peer in range(3) if peer != node]
        assert all(line["bandwidth"] > 0 and line["latencySeconds"] > 0 for line in lines[1:])
        (tmp_path / f"work-{node}/preflight.jsonl").unlink()
    wait_for(lambda: agents[0].status().progress.step > 0, "a step")
    os.kill(first["pid"], signal.SIGKILL)
    cluster.record(0, 1)
    assert not any(measured(tmp_path, node) for node in range(3))

    for nodes in (2, 3):
        (tmp_path / "work-0/preflight.jsonl").unlink(missing_ok=True)
        agents[0].signal(signal.SIGTERM)
        assert agents[0].wait().reason is Reason.PREEMPTED
        agents[0] = cluster.start(0, nodes=nodes)
        wait_for(lambda nodes=nodes: cluster.attempts(0) == nodes + 1, f"a run on {nodes} nodes", CHECK_SECONDS)
        [device, *pairs] = [json.loads(line) for line in measured(tmp_path, 0)]
        assert device["isExact"]
        assert sorted(pair["peer"] for pair in pairs) == list(range(1, nodes))
    cluster.finish()
    assert outcomes(agents) == [(Reason.COMPLETE, None, None)] * 3


@pytest.mark.timeout(300)
def test_pods_without_the_check_train_with_a_new_one(create_cluster: CreateCluster, tmp_path: Path) -> None:
    """A document that is edited during a run asks only new pods for the check: they must not wait for the others' results."""
    (tmp_path / "benchmark.json").write_text("{}")
    cluster = create_cluster({0: ["train"], 1: ["train"]})
    agents = [cluster.start(0)]
    cluster.preflight = CONFIG
    agents.append(cluster.start(1))
    cluster.record(0, 0)
    assert measured(tmp_path, 1) == []
    cluster.finish()
    assert outcomes(agents) == [(Reason.COMPLETE, None, None)] * 2
