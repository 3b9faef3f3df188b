"""DeepSpeed's seam for checkpoints: what it saves is snapshotted, what it loads comes through torch's safe path."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from finetune_trainer.checkpoint.snapshot import HostMemory

# Everything beside tensors and plain containers that DeepSpeed stores; any other class in a file is refused.
torch.serialization.add_safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address])


class SnapshotEngine(CheckpointEngine):  # type: ignore[misc]  # DeepSpeed ships no types
    """Gathers one checkpoint's files in host memory; a writer takes them from there."""

    def __init__(self, memory: HostMemory) -> None:
        super().__init__()
        self.name = "finetune"
        self.files: dict[str, Any] = {}
        self._memory = memory

    def begin(self, changing: Iterable[torch.Tensor]) -> None:
        """Starts a new checkpoint; see `HostMemory.begin`."""
        self.files = {}
        self._memory.begin(changing)

    def create(self, info: CheckpointCommitInfo) -> None:
        """Nothing to prepare: `begin` did, before DeepSpeed was asked."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """No folders: nothing is written where DeepSpeed believes that it is."""

    def save(self, state_dict: Any, path: str) -> None:
        """Snapshots one file's content; its name alone matters, the folder is chosen by the writer."""
        self.files[Path(path).name] = self._memory.take(state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Reads one verified file; raises pickle.UnpicklingError for a class that is not on the list."""
        return load(Path(path))

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """All of this rank is in `files`: copying may start."""
        self._memory.start()
        return True


def load(path: Path) -> Any:
    """The content of a file of a checkpoint, on the host; no code in it is run."""
    return torch.load(path, map_location="cpu", weights_only=True)
