"""Loads a checkpoint of another topology, by DeepSpeed's universal checkpoints.

Lian et al. 2024, "Universal Checkpointing" (arXiv:2406.18820): each parameter and each of its optimizer states becomes a
separate, unpartitioned file, from which every topology can load its partition.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.checkpoint.files import load
from finetune_trainer.distributed.process_group import ProcessGroup, import_deepspeed
from finetune_trainer.protocol import heartbeat

log = logging.getLogger(__name__)


def load_converted(engine: Any, folder: Path, converted: Path, group: ProcessGroup) -> dict[str, Any]:
    """Convert the verified files in `folder` once per node, load the result into `engine`, and return the client state.

    The conversion is written to `converted`, which is replaced if it exists. Collective.
    """
    if group.local_rank == 0:
        log.info("the checkpoint has another topology and is converted")
        shutil.rmtree(converted, ignore_errors=True)
        _convert(folder, converted)
    group.barrier()
    settings = []
    for parameter_group in engine.basic_optimizer.param_groups:
        settings.append({key: value for key, value in parameter_group.items() if key != "params"})
    with _universal_loading(engine), _safe_loading():
        _, state = engine.load_checkpoint(str(converted.parent), tag=converted.name)
    _repair(engine, settings)
    _load_buffers(engine, converted)
    client_state: dict[str, Any] = state
    return client_state


def _repair(engine: Any, settings: list[dict[str, Any]]) -> None:
    """Correct two errors of the stage 3 loading in DeepSpeed 0.19."""
    # It gives every parameter group the settings of the first, so that biases and norms would get the matrices' weight decay.
    for group, group_settings in zip(engine.basic_optimizer.param_groups, settings, strict=True):
        group.update(group_settings)
    # It makes all groups share one step counter, which each of them would then advance.
    for state in engine.basic_optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _load_buffers(engine: Any, folder: Path) -> None:
    """Load buffers such as running means, which the files contain but DeepSpeed does not load."""
    stored = load(next(iter(sorted(folder.glob("*_model_states.pt")))))["module"]
    for name, buffer in engine.module.named_buffers():
        if name in stored:
            buffer.copy_(stored[name])


def _convert(folder: Path, target: Path) -> None:
    import_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

    arguments = argparse.Namespace(
        input_folder=str(folder), output_folder=str(target), num_extract_workers=1, num_merge_workers=1,
        keep_temp_folder=False, strict=True, inject_missing_state=True,
    )  # fmt: skip
    target.mkdir(parents=True)
    with heartbeat.while_busy(), _safe_loading(), contextlib.redirect_stdout(io.StringIO()):
        ds_to_universal.main(arguments)


@contextlib.contextmanager
def _universal_loading(engine: Any) -> Iterator[None]:
    """Make the engine load a universal checkpoint: DeepSpeed reads this from its configuration, which is older than the
    decision."""
    previous = engine._config.load_universal_checkpoint
    engine._config.load_universal_checkpoint = True
    try:
        yield
    finally:
        engine._config.load_universal_checkpoint = previous


@contextlib.contextmanager
def _safe_loading() -> Iterator[None]:
    """Make torch refuse to run code of a file: DeepSpeed's conversion loads files with weights_only=False."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    previous = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ[name]
        else:
            os.environ[name] = previous
