"""Loads a checkpoint of another topology, by DeepSpeed's universal checkpoints.

Lian et al. 2024, "Universal Checkpointing" (arXiv:2406.18820): each parameter and each of its optimizer states becomes a file
of its own, whole, which every topology can cut its part from.
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

from finetune_trainer.checkpoint.engine import load
from finetune_trainer.distributed.process_group import ProcessGroup

log = logging.getLogger(__name__)


def load_converted(engine: Any, folder: Path, scratch: Path, world: ProcessGroup) -> dict[str, Any]:
    """Converts the verified files in `folder` once a node, loads the result into `engine`, and returns the client state."""
    if world.local_rank == 0:
        log.info("the checkpoint is of another topology and is converted")
        shutil.rmtree(scratch, ignore_errors=True)
        _convert(folder, scratch)
    world.barrier()
    groups = [{key: value for key, value in group.items() if key != "params"} for group in engine.basic_optimizer.param_groups]
    with _universal(engine), _safe_loading():
        _, state = engine.load_checkpoint(str(scratch.parent), tag=scratch.name)
    _repair(engine, groups)
    _load_buffers(engine, scratch)
    result: dict[str, Any] = state
    return result


def _repair(engine: Any, groups: list[dict[str, Any]]) -> None:
    """Undoes what DeepSpeed 0.19's loading for stage 3 gets wrong."""
    # It gives every group the first one's settings, so that biases and norms would be decayed like matrices.
    for group, settings in zip(engine.basic_optimizer.param_groups, groups, strict=True):
        group.update(settings)
    # It lets all groups share one step counter, which each of them would then advance.
    for state in engine.basic_optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _load_buffers(engine: Any, folder: Path) -> None:
    """Running means and the like, which are in the files but which DeepSpeed leaves out."""
    stored = load(next(iter(sorted(folder.glob("*_model_states.pt")))))["module"]
    for name, buffer in engine.module.named_buffers():
        if name in stored:
            buffer.copy_(stored[name])


def _convert(folder: Path, target: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    arguments = argparse.Namespace(
        input_folder=str(folder), output_folder=str(target), num_extract_workers=1, num_merge_workers=1,
        keep_temp_folder=False, strict=True, inject_missing_state=True,
    )  # fmt: skip
    target.mkdir(parents=True)
    with _safe_loading(), contextlib.redirect_stdout(io.StringIO()):
        ds_to_universal.main(arguments)


@contextlib.contextmanager
def _universal(engine: Any) -> Iterator[None]:
    """DeepSpeed takes this from its configuration at the start, when it is not yet known."""
    before = engine._config.load_universal_checkpoint
    engine._config.load_universal_checkpoint = True
    try:
        yield
    finally:
        engine._config.load_universal_checkpoint = before


@contextlib.contextmanager
def _safe_loading() -> Iterator[None]:
    """DeepSpeed's conversion asks torch to run whatever code is in a file; this has torch refuse."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
