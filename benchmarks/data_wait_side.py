"""One side of data_wait.py, in a separate process; prints one JSON object."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from paired import Sample, print_sample
from torch.utils.data import DataLoader, Dataset

from finetune_trainer import objectives
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.dataloader import BatchBuilder, MicroBatch, PrefetchLoader
from finetune_trainer.data.loading.sampler import Sampler
from finetune_trainer.data.preprocessing.prepare import prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import loading, processors
from finetune_trainer.storage.base import Credentials

Batches = Iterator[list[MicroBatch]]


class Steps(Dataset[list[MicroBatch]]):
    """The micro-batches of each step, built on access."""

    def __init__(self, make: BatchBuilder, order: Sampler, count: int) -> None:
        self._make, self._order, self._count = make, order, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, step: int) -> list[MicroBatch]:
        return self._make(self._order.indices_for_step(step))


def peer(make: BatchBuilder, order: Sampler, count: int) -> Batches:
    """Load with torch's DataLoader, without worker processes."""
    return iter(DataLoader(Steps(make, order, count), batch_size=None, shuffle=False))


def ours(make: BatchBuilder, order: Sampler, count: int) -> Batches:
    """Load as finetune_trainer.training.loop does."""
    return PrefetchLoader(make, (order.indices_for_step(step) for step in range(count)))


def build(spec: TrainSpec, cache: Path) -> tuple[Any, objectives.Objective, BatchBuilder, Sampler]:
    """Build the model, the objective, the batch builder and the sampler of a document."""
    reading = SourceResolver(spec.objective, cache, Credentials())
    objective = objectives.from_spec(spec, processors.load_processor(spec, reading))
    data, training = prepare(spec, objective.encoder, reading), spec.training
    load = partial(
        loading.load_model, spec.model, dtype=torch.float32, cache=cache, credentials=Credentials(), seed=training.seed
    )
    maker = BatchBuilder(data.train, objective.collator, Layout(training=True), 0, 1, training.micro_batch_size, training.seed)
    return objective.build_model(load), objective, maker, Sampler(data.epoch, training.batch_size, training.seed, data.mixture)


def measure(model: Any, objective: objectives.Objective, batches: Batches, steps: int, warm_up: int) -> Sample:
    """Train, and measure the waiting time and the duration of the steps after the warm-up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    waits, times = [], []
    for _ in range(warm_up + steps):
        started = time.perf_counter()
        [batch] = next(batches)
        waits.append(time.perf_counter() - started)
        loss = objective.loss.loss_sum(model, batch.batch).sum() / batch.terms[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        del batch, loss
        times.append(time.perf_counter() - started)
    seconds = sum(times[warm_up:])
    return {"waiting": sum(waits[warm_up:]) / seconds, "steps_per_second": steps / seconds, "waits": waits, "times": times}


def main() -> None:
    """Measure one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("peer", "ours"))
    parser.add_argument("document", type=Path, help="a TrainSpec")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    options = parser.parse_args()
    spec = TrainSpec.model_validate_json(options.document.read_text())
    model, objective, maker, order = build(spec, options.document.parent / "cache")
    model.train()
    batches = (peer if options.side == "peer" else ours)(maker, order, options.warm_up + options.steps)
    print_sample(measure(model, objective, batches, options.steps, options.warm_up))


if __name__ == "__main__":
    main()
