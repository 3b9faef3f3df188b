"""The agent's command line, and every limit that it applies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.config.preflight import PreflightConfig


@dataclass(frozen=True)
class Limits:
    """Times in seconds, and the number of failures that are tolerated."""

    poll_interval: float = 0.1  # between two polls of ranks and store
    share_interval: float = 1.0  # between two signs of life for the other nodes
    pause: float = 5.0  # between two polls from which the agent itself was paused, and its ranks with it
    cause_delay: float = 2.0  # a lost peer is usually the consequence of another rank's failure: wait for that to be reported
    kill_grace: float = 1.0  # between SIGTERM and SIGKILL for ranks that are restarted
    start_grace: float = 15.0  # between SIGTERM and SIGKILL for ranks that have no step to store yet
    exit_grace: float = 30.0  # for a rank to exit after it reported its outcome
    store_timeout: float = 30.0  # for an answer of the store before it counts as lost
    port_timeout: float = 60.0  # for the store's port to become free
    end_grace: float = 15.0  # for the other agents to read how the run ended before agent 0 closes the store
    max_reconnect_pause: float = 5.0  # between two tries to reach the store
    max_in_place_restarts: int = 3  # without a new step in between
    spare_delay: float = 5.0  # between the first step and the start of the spare process: a run may be over by then
    spare_niceness: int = 10  # of the spare process while it imports the libraries, so that training gets the cores first


@dataclass(frozen=True)
class Settings:
    """The agent's command line. `nodes` of agent 0 holds for all agents."""

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
    run_id: str | None = None
    http_port: int = 9400
    credentials_dir: Path | None = None
    termination_log: Path | None = None
    rank_module: str = "finetune_trainer.training"
    preflight: PreflightConfig | None = None
    preflight_module: str = "finetune_trainer.agent.node_benchmark"
    limits: Limits = Limits()
    hang: HangLimits = field(default_factory=HangLimits)

    def rank(self, local_rank: int) -> int:
        """The rank of a local rank; restarts never change it."""
        return self.node_rank * self.processes_per_node + local_rank
