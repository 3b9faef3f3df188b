"""The run, the attempt and the rank that checkpoints belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.checkpoint.data_record import DataRecord
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import EventSink
from finetune_trainer.storage.base import Storage


@dataclass(frozen=True)
class CheckpointContext:
    """The run and the rank of a checkpoint, for all stages of saving and restoring it."""

    storage: Storage
    identity: Mapping[str, Any]
    """The part of the document that a checkpoint must agree with; see `run_identity`."""
    group: ProcessGroup
    attempt: str
    """The name of this attempt: one lifetime of the process group, from rendezvous to exit."""
    work_dir: Path
    """A directory on this node's own disk."""
    report: EventSink
    total_steps: int | None = None
    """The planned length of the run."""
    data: DataRecord | None = None
    """Digests of the run's data; only the first rank needs them."""

    @property
    def upload_dir(self) -> Path:
        """Where this rank writes its files before it uploads them."""
        return self.work_dir / "upload" / f"rank-{self.group.rank:05d}"

    @property
    def restore_dir(self) -> Path:
        """Where the ranks of this node download and convert files; deleted after a restore."""
        return self.work_dir / "restore"
