"""What a rank does in the tests of checkpoints: a real engine on a small network, its own storage and folder."""

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

from finetune_trainer.checkpoint.manager import CheckpointManager
from finetune_trainer.config import CheckpointConfig
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import CheckpointFailed, CheckpointStored, Event
from finetune_trainer.protocol.outcome import StorageError
from finetune_trainer.storage.base import Credentials, Storage

IDENTITY = {"training": {"seed": 1, "batchSize": 8}, "model": {"config": {"model_type": "small"}}}
WIDTH = 160  # so that weights exceed what a snapshot copies at once


@dataclass(frozen=True)
class Life:
    """One life of a process group: what it trains, where it saves, and how far it goes."""

    uri: str
    work_dir: str
    environment: Mapping[str, str] = field(default_factory=dict)
    stage: int = 1
    precision: str = "fp32"
    steps: int = 6
    every: int = 2
    keep: int = 10
    identity: Mapping[str, Any] = field(default_factory=lambda: IDENTITY)
    attempt: str = "first"
    retry_seconds: tuple[float, ...] = ()
    part_seconds: float = 60
    acts: Mapping[int, Callable[[Life, ProcessGroup, CheckpointManager], None]] = field(
        default_factory=dict
    )  # what goes wrong before a step
    plain: bool = False  # no dropout, running means or noise, so that the loss does not depend on the number of ranks


@dataclass
class Lived:
    """What came of it on one rank: losses by step, where it resumed, and what it reported."""

    resumed: int | None
    losses: dict[int, float]
    events: list[Event]

    @property
    def stored(self) -> list[int]:
        """Steps whose checkpoints were reported as stored."""
        return [event.checkpoint.step for event in self.events if isinstance(event, CheckpointStored)]

    @property
    def failed(self) -> dict[int, str]:
        """Steps whose checkpoints were reported as failed, and why."""
        return {event.step: event.message for event in self.events if isinstance(event, CheckpointFailed)}


class Network(torch.nn.Module):
    """Has what makes a resume hard: dropout, running means that a forward pass changes, tied and frozen weights."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.dropout = 0.0 if plain else 0.2
        self.first = torch.nn.Linear(8, WIDTH)
        self.middle = torch.nn.Linear(WIDTH, WIDTH)
        self.norm = torch.nn.Identity() if plain else torch.nn.BatchNorm1d(WIDTH, affine=False)
        self.tied = torch.nn.Linear(WIDTH, WIDTH)
        self.tied.weight = self.middle.weight
        self.frozen = torch.nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.last = torch.nn.Linear(WIDTH, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.dropout(torch.tanh(self.first(rows)), self.dropout, self.training)
        hidden = self.norm(torch.tanh(self.middle(hidden)))
        return self.last(torch.tanh(self.frozen(self.tied(hidden))))


def engine_of(stage: int, precision: str, model: Callable[[], torch.nn.Module]) -> Any:
    """A DeepSpeed engine on a freshly initialised network, with AdamW."""
    import deepspeed

    torch.manual_seed(3)
    network = model()
    decayed = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
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


def checkpoints_of(here: ProcessGroup, life: Life, engine: Any, events: list[Event]) -> CheckpointManager:
    """The checkpoints of a life, on one rank."""
    os.environ.update(life.environment)
    work_dir = Path(life.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    return CheckpointManager(
        engine=engine, storage=Storage.open(life.uri, Credentials()), identity=life.identity, world=here,
        settings=CheckpointConfig(storage=life.uri, every_steps=life.every, keep_last=life.keep), attempt=life.attempt,
        work_dir=work_dir, report=events.append, retry_seconds=life.retry_seconds, part_seconds=life.part_seconds,
    )  # fmt: skip


def step(here: ProcessGroup, engine: Any, number: int) -> float:
    """One step on rows that depend on its number alone, dealt to the ranks; the mean loss over them."""
    generator = torch.Generator().manual_seed(number)
    rows = torch.randn(8, 8, generator=generator)
    share = 8 // here.size
    mine = rows[here.rank * share : (here.rank + 1) * share].to(next(engine.module.parameters()).dtype)
    loss = (engine(mine).float().squeeze(1) - mine.float().sum(1)).square().mean()
    if engine.module.dropout:
        # What the generators say goes into the loss, so that a resume must bring them back.
        loss = loss + random.random() + float(numpy.random.rand())
    engine.backward(loss)
    engine.step()
    return here.sums(loss.item())[0] / here.size


def live(place: Place, life: Life) -> Lived:
    """Resumes, trains to the end, saves when due and waits for the last checkpoint."""
    with joined(place) as here:
        engine = engine_of(life.stage, life.precision, lambda: Network(life.plain))
        events: list[Event] = []
        checkpoints = checkpoints_of(here, life, engine, events)
        _seed(100 + here.rank)
        state = checkpoints.restore()
        resumed = state["step"] if state else None
        losses = {}
        for number in range((resumed or 0) + 1, life.steps + 1):
            if number in life.acts:
                life.acts[number](life, here, checkpoints)
            losses[number] = step(here, engine, number)
            if checkpoints.due(number):
                checkpoints.save(number, {"step": number, "history": [losses[number]], "rank": torch.tensor(here.rank)})
        checkpoints.finish()
        return Lived(resumed, losses, events)


def live_beside_the_dying(place: Place, life: Life) -> Lived:
    """Stores a checkpoint after step 1; during the upload of the next one rank 1 is killed, and rank 0 waits for its part."""
    with joined(place) as here:
        engine = engine_of(life.stage, life.precision, lambda: Network(life.plain))
        events: list[Event] = []
        checkpoints = checkpoints_of(here, life, engine, events)
        checkpoints.restore()
        step(here, engine, 1)
        checkpoints.save(1, {"step": 1})
        checkpoints.finish()
        step(here, engine, 2)
        if here.rank == 1:
            _die_at_second_upload()
        checkpoints.save(2, {"step": 2})
        deadline = time.monotonic() + 60
        while len(events) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        return Lived(None, {}, events)


def _die_at_second_upload() -> None:
    put, calls = Storage.put, itertools.count()

    def put_or_die(self: Storage, path: str, content: bytes | Path) -> None:
        if next(calls):
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, path, content)

    Storage.put = put_or_die  # type: ignore[method-assign]  # this process is about to end


def close_gate(life: Life, here: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """From now on the storage hangs up; what was on its way has arrived."""
    checkpoints.finish()
    Path(life.work_dir, "closed").touch()


def open_gate(life: Life, here: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """The storage is back."""
    Path(life.work_dir, "closed").unlink()


def break_disk_of_rank_1(life: Life, here: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """Rank 1 finds a file where its folder should be; what was on its way has arrived."""
    checkpoints.finish()
    if here.rank == 1:
        Path(life.work_dir, "upload").mkdir(exist_ok=True)
        Path(life.work_dir, "upload/rank-00001").touch()


def mend_disk_of_rank_1(life: Life, here: ProcessGroup, checkpoints: CheckpointManager) -> None:
    """The file is gone again, after it did its harm."""
    with contextlib.suppress(StorageError):
        checkpoints.finish()
    if here.rank == 1:
        Path(life.work_dir, "upload/rank-00001").unlink()


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
