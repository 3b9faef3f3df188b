"""DeepSpeed's checkpoint engine: saves go to a snapshot in host memory, loads run no code of the file.

Import this module only when DS_ACCELERATOR is set, as it is after the process group was joined; the import fails otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.checkpoint.files import load
from finetune_trainer.checkpoint.snapshot import HostMemory
from finetune_trainer.distributed.process_group import import_deepspeed

import_deepspeed()
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine  # noqa: E402
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler  # noqa: E402
from deepspeed.runtime.zero.config import ZeroStageEnum  # noqa: E402
from deepspeed.utils.tensor_fragment import fragment_address  # noqa: E402

# All classes that DeepSpeed stores apart from tensors and plain containers; `load` rejects a file with any other class.
torch.serialization.add_safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address])


class SnapshotEngine(CheckpointEngine):  # type: ignore[misc]  # DeepSpeed ships no types
    """Collects the files of one checkpoint in host memory, from where the writer takes them."""

    def __init__(self, memory: HostMemory) -> None:
        super().__init__()
        self.name = "finetune"
        self.files: dict[str, Any] = {}
        self._memory = memory

    def begin(self, changing: Iterable[torch.Tensor]) -> None:
        """Start a new checkpoint; see `HostMemory.begin`."""
        self.files = {}
        self._memory.begin(changing)

    def create(self, info: CheckpointCommitInfo) -> None:
        """Do nothing: `begin` is called before DeepSpeed saves."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: no file is written to the folder that DeepSpeed was given."""

    def save(self, state_dict: Any, path: str) -> None:
        """Take a snapshot of one file's content. Only the file's name is used; the writer chooses the folder."""
        self.files[Path(path).name] = self._memory.take(state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read one verified file; raises pickle.UnpicklingError for a class that is not on the list."""
        return load(Path(path))

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Start copying: `files` holds the whole state of this rank."""
        self._memory.start()
        return True
