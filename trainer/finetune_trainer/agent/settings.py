"""What an agent is told when it starts, and every limit it goes by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how often they may fail."""

    tick: float = 0.1  # between two looks at children and store
    start: float = 30 * 60  # without a sign of life while a rank loads, evaluates or exports
    step: float = 10 * 60  # without a sign of life while it trains
    first_cause: float = 2.0  # a lost peer is mostly another rank's fault: wait so long for it to be named
    kill_grace: float = 1.0  # between SIGTERM and SIGKILL for ranks that are to start anew
    last_word: float = 30.0  # for a rank to exit after it said that it ended
    store_answer: float = 30.0  # for the store to answer before it counts as lost
    store_port: float = 60.0  # for the store's port to become free
    farewell: float = 15.0  # for the other agents to take notice of the end before agent 0 takes the store along
    reconnect_most: float = 5.0  # between two tries to reach the store
    in_place_restarts: int = 3  # with no new step between them


@dataclass(frozen=True)
class Settings:
    """The agent's command line."""

    document: Path
    namespace: str
    job: str
    node_rank: int
    nodes: int
    processes_per_node: int
    rendezvous_host: str
    rendezvous_port: int
    work_dir: Path
    cache_dir: Path
    http_port: int = 9400
    credentials_dir: Path | None = None
    termination_log: Path | None = None
    rank_module: str = "finetune_trainer.training"
    limits: Limits = Limits()

    @property
    def world_size(self) -> int:
        """Ranks of all nodes."""
        return self.nodes * self.processes_per_node

    def rank(self, local_rank: int) -> int:
        """A rank never changes its place, whatever was restarted."""
        return self.node_rank * self.processes_per_node + local_rank
