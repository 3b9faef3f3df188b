"""How the agent started this rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.storage.base import Credentials


@dataclass(frozen=True)
class LaunchContext:
    """The launch arguments of one rank.

    `master` is the HOST:PORT where rank 0 listens, `attempt` names this attempt to run the process group, `work_dir` is scratch
    space of the node, and `cache_dir` holds models and prepared data for all ranks of the node. `job` is NAMESPACE/NAME, and
    `run_id` distinguishes this run from all others, across its restarts. `completes_once` is whether a completed run
    with this id is never repeated; a local run is, when its command is repeated.
    """

    rank: int
    world_size: int
    local_rank: int
    processes_per_node: int
    master: str
    attempt: str
    work_dir: Path
    cache_dir: Path
    credentials: Credentials
    job: str
    run_id: str
    completes_once: bool = False
