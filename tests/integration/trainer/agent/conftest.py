"""Fixtures for jobs whose agents are real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.agents import LIMITS, Cluster, CreateCluster, ForkServer

from finetune_trainer.agent.settings import Limits
from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.config.preflight import PreflightConfig


@pytest.fixture(scope="package")
def fork_server() -> Iterator[ForkServer]:
    fork_server = ForkServer()
    yield fork_server
    fork_server.close()


@pytest.fixture
def create_cluster(fork_server: ForkServer, tmp_path: Path) -> Iterator[CreateCluster]:
    clusters = []

    def create(
        behaviors: dict[int, list[str]], nodes: int = 2, per_node: int = 1, limits: Limits = LIMITS,
        preflight: PreflightConfig | None = None, **hang: int,
    ) -> Cluster:  # fmt: skip
        cluster = Cluster(
            fork_server, tmp_path, nodes, per_node, behaviors, limits=limits, hang=HangLimits(**hang), preflight=preflight
        )
        clusters.append(cluster)
        return cluster

    yield create
    for cluster in clusters:
        cluster.close()
