"""Fixtures for a node's ranks without the agent's loop."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_trainer.agent.environment import rank_environment
from finetune_trainer.agent.metrics import Metrics
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.settings import Limits, Settings
from finetune_trainer.agent.worker_group import WorkerGroup

FAKE_RANK = Path(__file__).parents[3] / "support"
StartWorkers = Callable[..., WorkerGroup]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of node 1 of two, with two ranks per node."""
    return Settings(
        document=tmp_path / "train.json",
        namespace="research",
        job="demo",
        node_rank=1,
        nodes=2,
        processes_per_node=2,
        rendezvous_host="localhost",
        rendezvous_port=1,
        work_dir=tmp_path / "work",
        cache_dir=tmp_path,
        rank_module="fake_rank",
        limits=Limits(kill_grace=0.1, exit_grace=0.3, spare_delay=0.0),
    )


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(Metrics("research", "demo"), first_rank=2)


@pytest.fixture
def start(settings: Settings, monitor: Monitor) -> Iterator[StartWorkers]:
    """Start ranks 2 and 3 as fake ranks with the given behaviors."""
    environment = rank_environment(settings, os.environ | {"PYTHONPATH": str(FAKE_RANK)})
    workers = WorkerGroup(settings, monitor, environment)

    def start(rank_2: str, rank_3: str) -> WorkerGroup:
        settings.document.write_text(json.dumps({"2": [rank_2], "3": [rank_3]}))
        workers.start(1, "localhost:1", settings.nodes)
        return workers

    yield start
    workers.close()
