"""What becomes of a run when ranks and agents die, hang, fail or are told to stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.agents import LIMITS, Agent, Cluster, Nursery, alive, wait_for

from finetune_trainer.agent.settings import Limits
from finetune_trainer.protocol.outcome import Reason

Form = Callable[..., Cluster]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def form(nursery: Nursery, tmp_path: Path) -> Iterator[Form]:
    clusters = []

    def form(lives: dict[int, list[str]], nodes: int = 2, per_node: int = 1, limits: Limits = LIMITS) -> Cluster:
        clusters.append(Cluster(nursery, tmp_path, nodes, per_node, limits, lives))
        return clusters[-1]

    yield form
    for cluster in clusters:
        cluster.close()


def ends(agents: list[Agent]) -> list[tuple[Reason, int | None, int | None]]:
    return [(outcome.reason, outcome.rank, outcome.node) for outcome in (agent.end() for agent in agents)]


def test_every_rank_has_its_place_and_all_nodes_complete(form: Form) -> None:
    cluster = form({}, nodes=2, per_node=2)
    assert ends(cluster.start_all()) == [(Reason.COMPLETE, None, None)] * 2
    notes = [cluster.life(rank, 0) for rank in range(4)]
    places = [(note["rank"], note["local_rank"], note["world_size"], note["processes_per_node"]) for note in notes]
    assert places == [(0, 0, 4, 2), (1, 1, 4, 2), (2, 0, 4, 2), (3, 1, 4, 2)]
    assert {note["job"] for note in notes} == {"research/demo"}
    assert len({note["master"] for note in notes}) == 1
    assert len({note["attempt"] for note in notes}) == 1


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_starts_anew_with_all_others(form: Form, victim: int) -> None:
    cluster = form({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    first = [cluster.life(rank, 0) for rank in (0, 1)]
    wait_for(lambda: agents[0].status().progress.step > 0, "a step")
    os.kill(first[victim]["pid"], signal.SIGKILL)
    second = [cluster.life(rank, 1) for rank in (0, 1)]
    assert not any(alive(note["pid"]) for note in first)
    assert second[0]["attempt"] == second[1]["attempt"] > first[0]["attempt"]
    assert [agent.status().in_place_restarts for agent in agents] == [1, 1]
    assert "finetune_in_place_restarts_total{" in agents[0].get("/metrics")
    assert agents[0].get("/healthz") == "ok"
    cluster.finish()
    assert ends(agents) == [(Reason.COMPLETE, None, None)] * 2


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_agent_leaves_no_rank_and_its_successor_is_waited_for(form: Form, victim: int) -> None:
    cluster = form({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    first = [cluster.life(rank, 0) for rank in (0, 1)]
    agents[victim].kill()
    wait_for(lambda: not alive(first[victim]["pid"]), "the orphan's death")
    agents[victim] = cluster.start(victim)
    second = [cluster.life(rank, 1) for rank in (0, 1)]
    assert second[0]["attempt"] == second[1]["attempt"] > first[0]["attempt"]
    cluster.finish()
    assert ends(agents) == [(Reason.COMPLETE, None, None)] * 2


def test_all_nodes_end_with_the_first_cause_and_not_with_what_followed(form: Form) -> None:
    cluster = form({0: ["fail:RendezvousFailed:0"], 1: ["train"], 2: ["train"], 3: ["fail:InvalidData:0.3"]}, per_node=2)
    agents = cluster.start_all()
    assert ends(agents) == [(Reason.INVALID_DATA, 3, 1)] * 2
    assert {agent.end().message for agent in agents} == {"rank 3 says InvalidData"}
    assert [cluster.lives(rank) for rank in range(4)] == [1] * 4


def test_a_lost_peer_without_another_cause_starts_the_ranks_anew(form: Form) -> None:
    cluster = form({0: ["fail:RendezvousFailed:0", "complete"], 1: ["train", "complete"]})
    assert ends(cluster.start_all()) == [(Reason.COMPLETE, None, None)] * 2
    assert cluster.lives(0) == 2


@pytest.mark.parametrize(
    ("behaviour", "lives", "reason"),
    [
        ("exit:1", 4, Reason.CRASHED),
        ("kill:9", 4, Reason.CRASHED),
        ("exit:4", 1, Reason.OUT_OF_MEMORY),
        ("exit:7", 1, Reason.STORAGE_UNAVAILABLE),
    ],
)
def test_failures_without_progress_end_the_run(form: Form, behaviour: str, lives: int, reason: Reason) -> None:
    cluster = form({0: [behaviour]}, nodes=1)
    agent = cluster.start(0)
    assert ends([agent]) == [(reason, 0, 0)]
    assert cluster.lives(0) == lives


def test_a_new_step_forgives_earlier_failures(form: Form) -> None:
    cluster = form({0: ["progress-and-crash"] * 6 + ["complete"]}, nodes=1)
    assert ends([cluster.start(0)]) == [(Reason.COMPLETE, None, None)]
    assert cluster.lives(0) == 7


def test_a_silent_rank_is_named_and_started_anew(form: Form) -> None:
    cluster = form({0: ["train", "complete"], 1: ["silent", "complete"]}, limits=replace(LIMITS, step=1.0))
    agents = cluster.start_all()
    assert ends(agents) == [(Reason.COMPLETE, None, None)] * 2
    assert [cluster.lives(rank) for rank in (0, 1)] == [2, 2]


def test_a_rank_that_never_speaks_again_ends_as_a_hang(form: Form) -> None:
    limits = replace(LIMITS, step=0.4, in_place_restarts=1)
    cluster = form({0: ["deaf"], 1: ["silent"]}, per_node=2, nodes=1, limits=limits)
    outcome = cluster.start(0).end()
    assert (outcome.reason, outcome.rank, outcome.node) == (Reason.HANG, 1, 0)
    assert outcome.message.startswith("rank 1 on node 0 gave no sign of life for ")
    assert outcome.message.endswith("; so it went 2 times without a new step in between")


def test_all_are_told_to_stop(form: Form) -> None:
    cluster = form({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    wait_for(lambda: agents[0].status().progress.step > 0, "a step")
    cluster.life(1, 0)
    for agent in agents:
        agent.signal(signal.SIGTERM)
    assert ends(agents) == [(Reason.PREEMPTED, 0, 0), (Reason.PREEMPTED, 1, 1)]


@pytest.mark.parametrize("victim", [0, 1])
def test_one_node_is_told_to_stop_and_the_other_waits_for_its_return(form: Form, victim: int) -> None:
    cluster = form({0: ["train"], 1: ["train"]})
    agents = cluster.start_all()
    for rank in (0, 1):
        cluster.life(rank, 0)
    agents[victim].signal(signal.SIGTERM)
    assert agents[victim].end().reason is Reason.PREEMPTED
    assert not agents[1 - victim].ended
    agents[victim] = cluster.start(victim)
    assert cluster.life(0, 1)["attempt"] == cluster.life(1, 1)["attempt"]
    cluster.finish()
    assert ends(agents) == [(Reason.COMPLETE, None, None)] * 2


def test_a_stop_while_no_rank_runs_and_a_stop_that_does_not_wait(form: Form) -> None:
    cluster = form({0: ["deaf"], 1: ["train"]})
    alone = cluster.start(1)
    wait_for(lambda: _answers(alone), "the server")
    with pytest.raises(OSError, match="503"):
        alone.get("/healthz")
    alone.signal(signal.SIGTERM)
    assert alone.end().message == "told to stop while no rank ran"

    agents = cluster.start_all()
    note = cluster.life(0, 0)
    wait_for(lambda: agents[0].status().activity == "Training", "training")
    agents[0].signal(signal.SIGTERM)
    time.sleep(0.3)
    assert not agents[0].ended
    agents[0].signal(signal.SIGTERM)
    outcome = agents[0].end()
    assert outcome.reason is Reason.PREEMPTED_UNSAVED
    assert outcome.message.endswith("is lost because rank 0 on node 0 was killed by signal 9 (SIGKILL)")
    assert not alive(note["pid"])


def _answers(agent: Agent) -> bool:
    try:
        return bool(agent.get("/progress"))
    except OSError:
        return False


def test_metrics_carry_the_job_and_never_the_step(form: Form) -> None:
    cluster = form({0: ["train"]}, nodes=1)
    agent = cluster.start(0)
    cluster.life(0, 0)
    wait_for(lambda: agent.status().progress.step > 2, "three steps")
    families = list(text_string_to_metric_families(agent.get("/metrics")))
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    assert labels == {"namespace", "job", "rank", "le"}
    assert all(sample.labels["job"] == "demo" for family in families for sample in family.samples)
    assert {family.name for family in families} >= {"finetune_loss", "finetune_step_duration_seconds", "finetune_tokens"}
    cluster.finish()
    assert agent.end().reason is Reason.COMPLETE
