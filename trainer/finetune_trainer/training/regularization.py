"""Penalties for leaving the starting weights: L2-SP (arXiv:1802.01483) and elastic weight consolidation (arXiv:1612.00796).

Both penalties are half the sum of importance x (weight - start)^2 over the weights of the starting model, without a new head,
whose random start is not worth keeping. They differ only in the importance. Every rank holds whole copies of start and
importance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from finetune_trainer.config import EWCConfig, TrainingConfig
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.base import Source
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.huggingface.pretrained import training_mode
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import DataError

Importance = torch.Tensor | float
log = logging.getLogger(__name__)


class Regularizer:
    """The starting weights and the importance of each."""

    def __init__(self, weights: Iterable[torch.nn.Parameter], importances: Iterable[Importance]) -> None:
        self._terms: list[tuple[torch.nn.Parameter, torch.Tensor, Importance]] = []
        for weight, importance in zip(weights, importances, strict=True):
            self._terms.append((weight, weight.detach().float().clone(), importance))

    def penalty(self) -> torch.Tensor:
        """Half the sum of importance x (weight - start)^2, a differentiable float32 scalar."""
        total = torch.zeros(())
        for weight, start, importance in self._terms:
            total = total + 0.5 * (importance * (weight.float() - start).square()).sum()
        return total


def build_regularizer(
    training: TrainingConfig, model: Any, objective: Objective, layout: Layout, replay_sources: Callable[[], list[Source]],
    group: ProcessGroup,
) -> Regularizer | None:  # fmt: skip
    """The regularizer of `training.continual_learning`; None if it has no penalty.

    `model` is the starting model, before an engine wraps it. `replay_sources` is called only if importance is estimated on
    earlier data. Raises DataError for rows that cannot be used.
    """
    options = training.continual_learning
    if options is None or not options.penalizes:
        return None
    model.to(group.device)  # where the engine will move it, so that weights and starts share a device
    body = model.base_model if objective.model_setup.has_new_head else model
    weights = [weight for weight in body.parameters() if weight.requires_grad]
    importances: list[Importance] = [options.l2sp or 0.0] * len(weights)
    if options.ewc:
        rows = draw_samples(objective, replay_sources(), options.ewc.rows, training.seed)
        fisher = estimate_importance(model, weights, objective, layout, rows, group)
        importances = add_ewc(importances, fisher, options.ewc)
        count = sum(importance.numel() for importance in fisher)
        log.info("the importance of %s weights was estimated on %d rows of data.replay", f"{count:,}", len(rows))
    return Regularizer(weights, importances)


def add_ewc(importances: list[Importance], fisher: list[torch.Tensor], ewc: EWCConfig) -> list[Importance]:
    """Add the Fisher information, times the strength of the penalty, to the importance of each weight."""
    return [base + ewc.strength * added for base, added in zip(importances, fisher, strict=True)]


def estimate_importance(
    model: Any, weights: list[torch.nn.Parameter], objective: Objective, layout: Layout, rows: list[Sample],
    group: ProcessGroup,
) -> list[torch.Tensor]:  # fmt: skip
    """The diagonal of the empirical Fisher information: the mean over `rows` of the squared gradient of a row's loss.

    Each rank computes its share of the rows; the result is the same on all ranks. The model's own gradients stay untouched.
    """
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    with training_mode(model, False):
        for index in range(group.rank, len(rows), group.size):
            generator = sample_generator(0, 0, index)
            batch = objective.collator.collate([rows[index]], [generator], layout).to(group.device)
            [prepared] = objective.loss.prepare_step(model, [batch], group)
            loss = objective.loss.loss_sum(model, prepared).sum()
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total += gradient.float().square()
            heartbeat.beat()
    return [group.all_reduce_sum(total) / len(rows) for total in sums]


def draw_samples(objective: Objective, sources: list[Source], count: int, seed: int) -> list[Sample]:
    """Draw `count` rows from all sources and encode them; the result is the same on every rank."""
    rows = reservoir_sample((row for source in sources for row in source.rows()), count, seed)
    samples: list[Sample] = []
    for encoded in objective.encoder.encode(rows) if rows else ():
        for example in encoded.examples:
            samples.append({name: np.asarray(values) for name, values in example.items()})
    if not samples:
        raise DataError("spec.data.replay: no row is left to estimate importance on: add data")
    return samples


def reservoir_sample(rows: Iterable[Row], count: int, seed: int) -> list[Row]:
    """A uniform sample of a stream of rows (Vitter 1985, algorithm R)."""
    random = np.random.Generator(np.random.Philox(seed))
    sample: list[Row] = []
    for number, row in enumerate(rows):
        if number < count:
            sample.append(row)
            continue
        slot = int(random.integers(0, number + 1))
        if slot < count:
            sample[slot] = row
    return sample
