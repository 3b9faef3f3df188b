"""Penalties on leaving the starting weights: L2-SP (arXiv:1802.01483) and elastic weight consolidation (arXiv:1612.00796).

Both are half the sum of importance x (weight - start)^2 over the weights of the starting model; a new head has no start that is
worth keeping. They differ in the importance alone. The copies of start and importance are whole on every rank.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import Layout, to_device
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.base import Source
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import DataError

Importance = torch.Tensor | float
log = logging.getLogger(__name__)


class Regularizer:
    """The starting weights, and how much each of them matters."""

    def __init__(self, weights: Iterable[torch.nn.Parameter], importances: Iterable[Importance]) -> None:
        self._held = [
            (weight, weight.detach().float().clone(), importance)
            for weight, importance in zip(weights, importances, strict=True)
        ]

    def penalty(self) -> torch.Tensor:
        """Half the sum of importance x (weight - start)^2, a float32 to differentiate."""
        return sum((_pull(*one) for one in self._held), start=torch.zeros(()))


def _pull(weight: torch.nn.Parameter, start: torch.Tensor, importance: Importance) -> torch.Tensor:
    return 0.5 * (importance * (weight.float() - start).square()).sum()


def build_regularizer(
    spec: TrainSpec, model: Any, objective: Objective, layout: Layout, earlier: Callable[[], list[Source]], world: ProcessGroup,
    alive: Callable[[], None],
) -> Regularizer | None:  # fmt: skip
    """What the document asks for, or nothing; `model` is the one that starts, before any engine has it.

    `earlier` is called if the importance is to be measured on earlier data. Raises DataError for rows that cannot be used.
    """
    wanted = spec.training.continual_learning
    if wanted is None or not wanted.penalizes:
        return None
    model.to(world.device)  # where the engine will have it, so that weights and starts are in one place
    body = model.base_model if objective.has_new_head else model
    weights = [weight for weight in body.parameters() if weight.requires_grad]
    importances: list[Importance] = [wanted.l2sp or 0.0] * len(weights)
    if wanted.ewc:
        rows = _rows(objective, earlier(), wanted.ewc.rows, spec.training.seed)
        found = importance(model, weights, objective, layout, rows[world.rank :: world.size], len(rows), world, alive)
        importances = [base + wanted.ewc.strength * one for base, one in zip(importances, found, strict=True)]
        log.info(
            "the importance of %s weights was measured on %d earlier rows", f"{sum(one.numel() for one in found):,}", len(rows)
        )
    return Regularizer(weights, importances)


def importance(
    model: Any, weights: list[torch.nn.Parameter], objective: Objective, layout: Layout, rows: list[Sample], total: int,
    world: ProcessGroup, alive: Callable[[], None],
) -> list[torch.Tensor]:  # fmt: skip
    """The diagonal of the empirical Fisher information: the mean over `total` rows of the squared gradient of a row's loss.

    `rows` are this rank's share of them; the result is the same on all ranks. The model's own gradients stay untouched.
    """
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    was_training = model.training
    model.eval()
    for index, row in enumerate(rows):
        batch = to_device(
            objective.collate([row], [sample_generator(0, 0, index * world.size + world.rank)], layout), world.device
        )
        loss = objective.loss_sum(model, batch).sum()
        for total_of, gradient in zip(sums, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            if gradient is not None:
                total_of += gradient.float().square()
        alive()
    model.train(was_training)
    return [world.all_reduce_sum(one) / total for one in sums]


def _rows(objective: Objective, sources: list[Source], count: int, seed: int) -> list[Sample]:
    """`count` records drawn from all, and the rows they become; the same on every rank."""
    drawn = _drawn((record for source in sources for record in source.rows()), count, seed)
    examples = [example for encoded in objective.encode(drawn) for example in encoded.examples] if drawn else []
    if not examples:
        raise DataError("spec.data.replay: nothing is left to measure importance on: add data")
    return [{name: np.asarray(value) for name, value in example.items()} for example in examples]


def _drawn(records: Iterable[Row], count: int, seed: int) -> list[Row]:
    """A sample of the stream in which each record is as likely as any other (Vitter 1985, algorithm R)."""
    random = np.random.Generator(np.random.Philox(seed))
    kept: list[Row] = []
    for number, record in enumerate(records):
        place = number if number < count else int(random.integers(0, number + 1))
        if number < count:
            kept.append(record)
        elif place < count:
            kept[place] = record
    return kept
