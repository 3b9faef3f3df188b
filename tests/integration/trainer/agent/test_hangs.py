"""Ranks that make no progress, and ranks that seem to: only the first are restarted."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import replace

import pytest
from tests.support.agents import LIMITS, CreateCluster, outcomes
from tests.support.waiting import wait_for

from finetune_trainer.protocol.outcome import Reason

COMPLETE = (Reason.COMPLETE, None, None)


@pytest.mark.parametrize(
    "behavior",
    [
        pytest.param("micro-batches:15:0.2", id="step of many micro-batches"),
        pytest.param("save:3", id="last checkpoint"),
    ],
)
def test_a_working_rank_is_not_killed(create_cluster: CreateCluster, behavior: str) -> None:
    """Its work takes longer than the limit of a step."""
    cluster = create_cluster({0: [behavior]}, nodes=1, step_seconds=2)
    assert outcomes(cluster.start_all()) == [COMPLETE]
    assert cluster.attempts(0) == 1


@pytest.mark.parametrize("slow", [0, 1])
def test_a_rank_waits_for_another_node_that_prepares_data(create_cluster: CreateCluster, slow: int) -> None:
    """It waits longer than the limit, within which a process starts on a machine with other work."""
    cluster = create_cluster({slow: ["join:4"], 1 - slow: ["join:0"]}, start_seconds=3)
    assert outcomes(cluster.start_all()) == [COMPLETE] * 2
    assert [cluster.attempts(rank) for rank in (0, 1)] == [1, 1]


def test_a_rank_that_hangs_while_another_node_waits_for_it_is_found(create_cluster: CreateCluster) -> None:
    limits = replace(LIMITS, max_in_place_restarts=0, cause_delay=10.0)
    cluster = create_cluster({0: ["join:0"], 1: ["silent-preparation"]}, limits=limits, start_seconds=3)
    agents = cluster.start_all()
    assert outcomes(agents) == [(Reason.HANG, 1, 1)] * 2
    assert "while preparing (limit 3 s, runPolicy.hang.startSeconds); it is in hang (" in agents[0].wait().message


def test_restarts_hanging_rank(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["train"], 1: ["silent-preparation", "train"]}, start_seconds=3)
    agents = cluster.start_all()
    wait_for(lambda: cluster.attempts(0) == 2, "a restart")
    cause = agents[0].status().restart_cause
    assert cause is not None
    assert re.match(r"Hang: rank 1 on node 1 sent no heartbeat for \d+ seconds while preparing \(limit 3 s", cause)
    cluster.finish()
    assert outcomes(agents) == [COMPLETE] * 2
    assert [cluster.attempts(rank) for rank in (0, 1)] == [2, 2]


def test_rank_that_always_hangs_ends_run(create_cluster: CreateCluster) -> None:
    limits = replace(LIMITS, max_in_place_restarts=1)
    cluster = create_cluster({0: ["silent-preparation"], 1: ["silent"]}, per_node=2, nodes=1, limits=limits, step_seconds=1)
    outcome = cluster.start(0).wait()
    assert (outcome.reason, outcome.rank, outcome.node) == (Reason.HANG, 1, 0)
    assert outcome.message.startswith("rank 1 on node 0 sent no heartbeat for ")
    assert " while training (limit 1 s, runPolicy.hang.stepSeconds); it is in hang (" in outcome.message
    assert outcome.message.endswith("; it failed 2 times without a new step in between")


def test_a_stopped_process_is_found_and_named(create_cluster: CreateCluster) -> None:
    limits = replace(LIMITS, max_in_place_restarts=0)
    cluster = create_cluster({0: ["train"]}, nodes=1, limits=limits, step_seconds=2)
    agent = cluster.start(0)
    pid = cluster.record(0, 0)["pid"]
    wait_for(lambda: agent.status().progress.step > 2, "steps")
    os.kill(pid, signal.SIGSTOP)
    outcome = agent.wait()
    assert outcome.reason is Reason.HANG
    assert "it is stopped by a signal (process state T)" in outcome.message


def test_a_paused_machine_is_no_hang(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["train"]}, nodes=1, limits=replace(LIMITS, pause=1.5), step_seconds=2)
    agent = cluster.start(0)
    pid = cluster.record(0, 0)["pid"]
    wait_for(lambda: agent.status().progress.step > 2, "steps")
    for process in (agent.pid, pid):
        os.kill(process, signal.SIGSTOP)
    time.sleep(3)
    for process in (agent.pid, pid):
        os.kill(process, signal.SIGCONT)
    time.sleep(0.5)
    cluster.finish()
    assert outcomes([agent]) == [COMPLETE]
    assert cluster.attempts(0) == 1


def test_a_rank_that_waits_for_another_can_be_stopped(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["join:0"], 1: ["join:60"]}, limits=replace(LIMITS, start_grace=0.5))
    agents = cluster.start_all()
    wait_for((cluster.shared / "joined-0").exists, "the wait of rank 0")
    agents[0].signal(signal.SIGTERM)
    outcome = agents[0].wait()
    assert (outcome.reason, outcome.message) == (Reason.PREEMPTED, "stopped while the run was prepared; no step was lost")
