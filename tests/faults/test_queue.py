"""A run in a queue of the real Kueue: it is preempted with a checkpoint, and comes back without losing a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cluster_fixtures import SESSION
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.cluster_queues import queue, quota
from tests.support.cluster_run import ClusterRun, ClusterRuns, document
from tests.support.devcluster.kueue import kueue
from tests.support.devcluster.session import Cluster
from tests.support.reliability import Measure

from finetune_trainer.checkpoint.manifest import committed_steps


@pytest.fixture(scope="module")
def queues(operator: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with Kueue."""
    with kueue(operator.kubeconfig, tmp_path_factory.mktemp("kueue")):
        yield operator


@pytest.mark.usefixtures("queues")
def test_preempted_run(jobs: Jobs, runs: ClusterRuns, measure: Measure, tmp_path: Path) -> None:
    """A job of higher priority gets the quota after the running one has stored a checkpoint; afterwards that one goes on."""
    with queue(jobs, cpu="300m") as name:
        uri = f"s3://finetune/faults/{SESSION}/preempted"
        jobs.apply(document("low", uri, scheduling={"queueName": name, "workloadPriorityClass": "low"}))
        low = ClusterRun(jobs, "low", jobs.store(uri, tmp_path), runs.expected)
        low.wait_until_ready()
        preemption = time.time()
        priority = {"queueName": name, "workloadPriorityClass": "high"}
        high = jobs.apply(tiny("high", f"s3://finetune/faults/{SESSION}/high", nodes=2, steps=5, scheduling=priority))
        jobs.wait_for_phase(high, "Running", seconds=120)
        assert jobs.pods("low") == {}
        assert (low.status()["phase"], quota(low.status())[0]) == ("Pending", "False")
        assert max(committed_steps(low.storage)) == low.log.update().highest_step, "the last step is in the checkpoint"
        jobs.wait_for_phase(high, "Succeeded", seconds=240)
        recovered = low.wait_for_recovery(preemption, 1, seconds=240)
        low.wait_for_checkpoint(low.log.update().highest_step + 5)
        assert low.check_curve() > 0
        assert (recovered.steps_lost, recovered.restarts) == (0, 1)
        assert low.restarts() == {"failures": 0, "disruptions": 0}
        measure.record(26, "a queued job is preempted", None, recovered.steps_lost)
