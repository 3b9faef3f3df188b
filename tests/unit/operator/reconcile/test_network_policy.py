"""The NetworkPolicy of pods that an earlier operator process created."""

from __future__ import annotations

import pytest
from tests.support.simulated_cluster import SimulatedCluster

from finetune_operator.reconcile import UpdateNetworkPolicy


@pytest.mark.parametrize(
    ("name", "has_pods", "is_current", "is_updated"),
    [
        ("this process created it", True, True, False),
        ("another process created it", True, False, True),
        ("it is created with the pods", False, False, False),
    ],
)
def test_is_updated_once_per_process(name: str, has_pods: bool, is_current: bool, is_updated: bool) -> None:
    cluster = SimulatedCluster()
    if has_pods:
        cluster.run_all_pods()
    cluster.observed = {"network_policy_is_current": is_current}
    assert (UpdateNetworkPolicy() in cluster.plan().actions) == is_updated


def test_finished_job_keeps_its_policy() -> None:
    cluster = SimulatedCluster().run_all_pods().succeed(0).succeed(1)
    cluster.reconcile_until_stable()
    cluster.observed = {"network_policy_is_current": False}
    assert UpdateNetworkPolicy() not in cluster.plan().actions
