"""Ranks for the checkpoint tests: a DeepSpeed engine on a small network, with its own storage and directory."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from tests.support.ranks import Place
from tests.support.training import joined

from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.manager import CheckpointManager
from finetune_trainer.checkpoint.writer import WriterTimeouts
from finetune_trainer.config import CheckpointConfig
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import CheckpointFailed, CheckpointStored, Event
from finetune_trainer.protocol.outcome import StorageError
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage

IDENTITY = {"training": {"seed": 1, "batchSize": 8}, "model": {"config": {"model_type": "small"}}}
WIDTH = 160  # makes the weights larger than the tensors that a snapshot copies at once


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run: its model and engine, where it saves, and its number of steps."""

    uri: str
    work_dir: str
    environment: Mapping[str, str] = field(default_factory=dict)
    stage: int = 1
    precision: str = "fp32"
    steps: int = 6
    every: int = 2
    keep: int = 10
    identity: Mapping[str, Any] = field(default_factory=lambda: IDENTITY)
    name: str = "first"
    retry_pauses: tuple[float, ...] = ()
    parts_timeout: float = 60
    faults: Mapping[int, Callable[[Attempt, ProcessGroup, CheckpointManager], None]] = field(
        default_factory=dict
    )  # faults to inject, by the step before which they happen
    is_deterministic: bool = False  # no dropout, running means or noise, so that the loss does not depend on the ranks


@dataclass
class AttemptResult:
    """One rank's losses by step, the step it resumed from, and its events."""

    resumed: int | None
    losses: dict[int, float]
    events: list[Event]

    @property
    def stored(self) -> list[int]:
        """Steps whose checkpoints were reported as stored."""
        return [event.checkpoint.step for event in self.events if isinstance(event, CheckpointStored)]

    @property
    def failed(self) -> dict[int, str]:
        """Steps whose checkpoints were reported as failed, and the messages."""
        return {event.step: event.message for event in self.events if isinstance(event, CheckpointFailed)}


class Network(torch.nn.Module):
    """Has everything that makes a resume hard: dropout, running means that a forward pass changes, tied and frozen weights."""

    def __init__(self, is_deterministic: bool) -> None:
        super().__init__()
        self.dropout = 0.0 if is_deterministic else 0.2
        self.first = torch.nn.Linear(8, WIDTH)
        self.middle = torch.nn.Linear(WIDTH, WIDTH)
        self.norm = torch.nn.Identity() if is_deterministic else torch.nn.BatchNorm1d(WIDTH, affine=False)
        self.tied = torch.nn.Linear(WIDTH, WIDTH)
        self.tied.weight = self.middle.weight
        self.frozen = torch.nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.last = torch.nn.Linear(WIDTH, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.dropout(torch.tanh(self.first(rows)), self.dropout, self.training)
        hidden = self.norm(torch.tanh(self.middle(hidden)))
        return self.last(torch.tanh(self.frozen(self.tied(hidden))))


def build_engine(stage: int, precision: str, model: Callable[[], torch.nn.Module]) -> Any:
    """A DeepSpeed engine on a freshly initialized network, with AdamW."""
    import deepspeed

    torch.manual_seed(3)
    network = model()
    matrices = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
    vectors = [p for p in network.parameters() if p.requires_grad and p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 1000},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if precision == "bf16":
        config["bf16"] = {"enabled": True}
    engine, *_ = deepspeed.initialize(model=network, optimizer=torch.optim.AdamW(groups, lr=1e-2), config=config)
    return engine


def build_manager(group: ProcessGroup, attempt: Attempt, engine: Any, events: list[Event]) -> CheckpointManager:
    """The checkpoint manager of an attempt, on one rank."""
    os.environ.update(attempt.environment)
    work_dir = Path(attempt.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    context = CheckpointContext(
        storage=open_storage(attempt.uri, Credentials()), identity=attempt.identity, group=group, attempt=attempt.name,
        work_dir=work_dir, report=events.append,
    )  # fmt: skip
    config = CheckpointConfig(storage=attempt.uri, every_steps=attempt.every, keep_last=attempt.keep)
    timeouts = WriterTimeouts(attempt.retry_pauses, attempt.parts_timeout)
    return CheckpointManager(engine, config, context, timeouts=timeouts)


def train_step(group: ProcessGroup, engine: Any, number: int) -> float:
    """One step on rows that depend only on its number, split across the ranks; returns the mean loss over the ranks."""
    generator = torch.Generator().manual_seed(number)
    all_rows = torch.randn(8, 8, generator=generator)
    share = 8 // group.size
    rows = all_rows[group.rank * share : (group.rank + 1) * share].to(next(engine.module.parameters()).dtype)
    loss = (engine(rows).float().squeeze(1) - rows.float().sum(1)).square().mean()
    if engine.module.dropout:
        # The loss includes random numbers, so that a resume must restore the generators.
        loss = loss + random.random() + float(numpy.random.rand())
    engine.backward(loss)
    engine.step()
    return group.sums(loss.item())[0] / group.size


def run_attempt(place: Place, attempt: Attempt) -> AttemptResult:
    """Resume, train to the last step, save when due and wait for the last checkpoint."""
    with joined(place) as group:
        engine = build_engine(attempt.stage, attempt.precision, lambda: Network(attempt.is_deterministic))
        events: list[Event] = []
        checkpoints = build_manager(group, attempt, engine, events)
        _seed(100 + group.rank)
        state = checkpoints.restore()
        resumed = state["step"] if state else None
        losses = {}
        for number in range((resumed or 0) + 1, attempt.steps + 1):
            if number in attempt.faults:
                attempt.faults[number](attempt, group, checkpoints)
            losses[number] = train_step(group, engine, number)
            if checkpoints.is_due(number):
                checkpoints.save(number, {"step": number, "history": [losses[number]], "rank": torch.tensor(group.rank)})
        checkpoints.finish()
        return AttemptResult(resumed, losses, events)


def run_until_rank_1_dies(place: Place, attempt: Attempt) -> AttemptResult:
    """Store a checkpoint after step 1; rank 1 is killed during the upload of the next one, and rank 0 waits for its part."""
    with joined(place) as group:
        engine = build_engine(attempt.stage, attempt.precision, lambda: Network(attempt.is_deterministic))
        events: list[Event] = []
        checkpoints = build_manager(group, attempt, engine, events)
        checkpoints.restore()
        train_step(group, engine, 1)
        checkpoints.save(1, {"step": 1})
        checkpoints.finish()
        train_step(group, engine, 2)
        if group.rank == 1:
            _die_at_second_upload()
        checkpoints.save(2, {"step": 2})
        deadline = time.monotonic() + 60
        while len(events) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        return AttemptResult(None, {}, events)


def _die_at_second_upload() -> None:
    put, calls = Storage.put, itertools.count()

    def put_or_die(self: Storage, path: str, content: bytes | Path) -> None:
        if next(calls):
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, path, content)

    Storage.put = put_or_die  # type: ignore[method-assign]  # this process is about to end


def close_gate(attempt: Attempt, group: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """Make the storage close every connection from now on, after the pending checkpoint is stored."""
    checkpoints.finish()
    Path(attempt.work_dir, "closed").touch()


def open_gate(attempt: Attempt, group: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """Make the storage available again."""
    Path(attempt.work_dir, "closed").unlink()


def break_disk_of_rank_1(attempt: Attempt, group: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """Put a file where rank 1 creates its upload folder, after the pending checkpoint is stored."""
    checkpoints.finish()
    if group.rank == 1:
        Path(attempt.work_dir, "upload").mkdir(exist_ok=True)
        Path(attempt.work_dir, "upload/rank-00001").touch()


def repair_disk_of_rank_1(attempt: Attempt, group: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """Delete the file, after the pending checkpoint has failed."""
    with contextlib.suppress(StorageError):
        checkpoints.finish()
    if group.rank == 1:
        Path(attempt.work_dir, "upload/rank-00001").unlink()


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
