"""Runs whose ranks and agents die, fail or are stopped."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.agents import LIMITS, Agent, CreateCluster, is_alive, outcomes
from tests.support.waiting import wait_for

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Reason


def test_starts_every_rank_with_its_arguments_and_completes(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({}, nodes=2, per_node=2)
    assert outcomes(cluster.start_all()) == [(Reason.COMPLETE, None, None)] * 2
    records = [cluster.record(rank, 0) for rank in range(4)]
    arguments = [
        (record["rank"], record["local_rank"], record["world_size"], record["processes_per_node"]) for record in records
    ]
    assert arguments == [(0, 0, 4, 2), (1, 1, 4, 2), (2, 0, 4, 2), (3, 1, 4, 2)]
    assert {record["job"] for record in records} == {"research/demo"}
    assert len({record["master"] for record in records}) == 1
    assert len({record["attempt"] for record in records}) == 1


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank_restarts_with_all_others(create_cluster: CreateCluster, victim: int) -> None:
    cluster = create_cluster({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    first = [cluster.record(rank, 0) for rank in (0, 1)]
    wait_for(lambda: agents[0].status().progress.step > 0, "a step")
    os.kill(first[victim]["pid"], signal.SIGKILL)
    second = [cluster.record(rank, 1) for rank in (0, 1)]
    assert not any(is_alive(record["pid"]) for record in first)
    assert second[0]["attempt"] == second[1]["attempt"] > first[0]["attempt"]
    assert [agent.status().in_place_restarts for agent in agents] == [1, 1]
    assert "finetune_in_place_restarts_total{" in agents[0].get("/metrics")
    assert agents[0].get("/healthz") == "ok"
    cluster.finish()
    assert outcomes(agents) == [(Reason.COMPLETE, None, None)] * 2


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_agent_leaves_no_rank_and_its_replacement_joins(create_cluster: CreateCluster, victim: int) -> None:
    cluster = create_cluster({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    first = [cluster.record(rank, 0) for rank in (0, 1)]
    agents[victim].kill()
    wait_for(lambda: not is_alive(first[victim]["pid"]), "the death of the orphaned rank")
    agents[victim] = cluster.start(victim)
    second = [cluster.record(rank, 1) for rank in (0, 1)]
    assert second[0]["attempt"] == second[1]["attempt"] > first[0]["attempt"]
    cluster.finish()
    assert outcomes(agents) == [(Reason.COMPLETE, None, None)] * 2


def test_replaced_agent_that_still_lives_leaves_the_run_to_its_replacement(create_cluster: CreateCluster) -> None:
    """The pod of a node whose kubelet is dead is replaced while its processes run and still reach the others."""
    cluster = create_cluster({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    first = [cluster.record(rank, 0) for rank in (0, 1)]
    replacement = cluster.start(1)
    assert agents[1].wait_for_exit() == EXIT_POLICIES[Reason.PREEMPTED_UNSAVED].exit_code
    second = cluster.record(0, 1)
    assert second["attempt"] > first[0]["attempt"]
    wait_for(lambda: agents[0].status().progress.step > 100, "a step of the second attempt")
    assert cluster.attempts(0) == 2, "the two agents of node 1 do not end each other's rounds"
    cluster.finish()
    assert outcomes([agents[0], replacement]) == [(Reason.COMPLETE, None, None)] * 2


def test_all_nodes_end_with_first_cause(create_cluster: CreateCluster) -> None:
    limits = replace(LIMITS, cause_delay=10.0)  # on a machine with other work the second rank may start much later
    behaviors = {0: ["fail:RendezvousFailed:0"], 1: ["train"], 2: ["train"], 3: ["fail:InvalidData:0.3"]}
    cluster = create_cluster(behaviors, per_node=2, limits=limits)
    agents = cluster.start_all()
    assert outcomes(agents) == [(Reason.INVALID_DATA, 3, 1)] * 2
    assert {agent.wait().message for agent in agents} == {"rank 3 reports InvalidData"}
    assert [cluster.attempts(rank) for rank in range(4)] == [1] * 4


def test_lost_peer_without_other_cause_restarts_ranks(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["fail:RendezvousFailed:0", "complete"], 1: ["train", "complete"]})
    assert outcomes(cluster.start_all()) == [(Reason.COMPLETE, None, None)] * 2
    assert cluster.attempts(0) == 2


@pytest.mark.parametrize(
    ("behavior", "attempts", "reason"),
    [
        ("exit:1", 4, Reason.CRASHED),
        ("kill:9", 4, Reason.CRASHED),
        ("exit:4", 1, Reason.OUT_OF_MEMORY),
        ("exit:7", 1, Reason.STORAGE_UNAVAILABLE),
    ],
)
def test_failures_without_progress_end_run(create_cluster: CreateCluster, behavior: str, attempts: int, reason: Reason) -> None:
    cluster = create_cluster({0: [behavior]}, nodes=1)
    agent = cluster.start(0)
    assert outcomes([agent]) == [(reason, 0, 0)]
    assert cluster.attempts(0) == attempts


def test_new_step_resets_failure_count(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["progress-and-crash"] * 6 + ["complete"]}, nodes=1)
    assert outcomes([cluster.start(0)]) == [(Reason.COMPLETE, None, None)]
    assert cluster.attempts(0) == 7


def test_stop_of_all_nodes(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    for rank in (0, 1):
        cluster.record(rank, 0)  # an agent serves its status before it starts a rank
    wait_for(lambda: agents[0].status().progress.step > 0, "a step")
    for agent in agents:
        agent.signal(signal.SIGTERM)
    assert outcomes(agents) == [(Reason.PREEMPTED, 0, 0), (Reason.PREEMPTED, 1, 1)]


@pytest.mark.parametrize("victim", [0, 1])
def test_stop_of_one_node_makes_other_wait_for_its_return(create_cluster: CreateCluster, victim: int) -> None:
    cluster = create_cluster({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    for rank in (0, 1):
        cluster.record(rank, 0)
    agents[victim].signal(signal.SIGTERM)
    assert agents[victim].wait().reason is Reason.PREEMPTED
    assert not agents[1 - victim].has_ended
    agents[victim] = cluster.start(victim)
    assert cluster.record(0, 1)["attempt"] == cluster.record(1, 1)["attempt"]
    cluster.finish()
    assert outcomes(agents) == [(Reason.COMPLETE, None, None)] * 2


def test_agent_0_decides_the_number_of_nodes(create_cluster: CreateCluster) -> None:
    """A run on two nodes loses the second one, goes on without it, and takes it back: only agent 0 is replaced."""
    cluster = create_cluster({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    assert [cluster.record(rank, 0)["world_size"] for rank in (0, 1)] == [2, 2]
    agents[0].signal(signal.SIGTERM)
    assert agents[0].wait().reason is Reason.PREEMPTED
    agents[0] = cluster.start(0, nodes=1)
    assert cluster.record(0, 1)["world_size"] == 1
    wait_for(lambda: agents[0].status().progress.step > 120, "some steps on one node")
    assert cluster.attempts(1) == 1, "node 1 waits"
    assert not agents[1].has_ended
    agents[0].signal(signal.SIGTERM)
    assert agents[0].wait().reason is Reason.PREEMPTED
    agents[0] = cluster.start(0)
    records = [cluster.record(0, 2), cluster.record(1, 1)]
    assert [record["world_size"] for record in records] == [2, 2]
    assert records[0]["attempt"] == records[1]["attempt"]
    cluster.finish()
    assert outcomes(agents) == [(Reason.COMPLETE, None, None)] * 2


def test_a_node_beyond_the_run_waits_until_it_is_stopped(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["train"]}, nodes=1)
    agents = [cluster.start(0), cluster.start(1, nodes=2)]
    cluster.record(0, 0)
    time.sleep(1)
    assert cluster.attempts(0) == 1, "it does not disturb the run"
    agents[1].signal(signal.SIGTERM)
    assert agents[1].wait().message == "stopped on request while no rank ran"
    cluster.finish()
    assert outcomes(agents[:1]) == [(Reason.COMPLETE, None, None)]


def test_stop_without_ranks_and_second_signal(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["ignore-sigterm"], 1: ["train"]})
    agent = cluster.start(1)
    wait_for(lambda: _is_serving(agent), "the server")
    with pytest.raises(OSError, match="503"):
        agent.get("/healthz")
    agent.signal(signal.SIGTERM)
    assert agent.wait().message == "stopped on request while no rank ran"

    agents = cluster.start_all()
    record = cluster.record(0, 0)
    wait_for(lambda: agents[0].status().activity == "Training", "training")
    agents[0].signal(signal.SIGTERM)
    time.sleep(0.3)
    assert not agents[0].has_ended
    agents[0].signal(signal.SIGTERM)
    outcome = agents[0].wait()
    assert outcome.reason is Reason.PREEMPTED_UNSAVED
    assert outcome.message.endswith("is lost because rank 0 on node 0 was killed by signal 9 (SIGKILL)")
    assert not is_alive(record["pid"])


def _is_serving(agent: Agent) -> bool:
    try:
        return bool(agent.get("/progress"))
    except OSError:
        return False


def test_metrics_have_job_labels_and_no_step_label(create_cluster: CreateCluster) -> None:
    cluster = create_cluster({0: ["train"]}, nodes=1)
    agent = cluster.start(0)
    cluster.record(0, 0)
    wait_for(lambda: agent.status().progress.step > 2, "three steps")
    families = list(text_string_to_metric_families(agent.get("/metrics")))
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    assert labels == {"namespace", "job", "rank", "le"}
    assert all(sample.labels["job"] == "demo" for family in families for sample in family.samples)
    assert {family.name for family in families} >= {"finetune_loss", "finetune_step_duration_seconds", "finetune_tokens"}
    cluster.finish()
    assert agent.wait().reason is Reason.COMPLETE
