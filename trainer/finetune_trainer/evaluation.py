"""The loss on the evaluation data: every row once, whatever the number of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from finetune_trainer.objectives.base import Batch, Objective
from finetune_trainer.outcome import NonFiniteLossError
from finetune_trainer.world import World


def evaluate(
    engine: Any, objective: Objective, batches: Iterable[Batch], world: World, go_on: Callable[[], bool]
) -> dict[str, float] | None:
    """The objective's metrics over all ranks' batches; None if the evaluation was broken off.

    Every rank must bring the same number of batches, since ZeRO-3 gathers parameters in lockstep; one that has no rows left
    brings a batch whose labels are all ignored. `go_on` is asked before each batch, on all ranks, and must give the same
    answer on all. Raises NonFiniteLossError.
    """
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    engine.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                if not go_on():
                    return None
                count += objective.count(batch)
                total += objective.loss_sum(engine, on_device(batch, world)).double().cpu()
    finally:
        engine.train()
    summed, terms = world.sums(float(total), count)
    loss = summed / max(terms, 1)
    if not math.isfinite(loss):
        raise NonFiniteLossError("the loss on the evaluation data is not finite: lower spec.training.optimizer.learningRate")
    return objective.metrics(loss)


def on_device(batch: Batch, world: World) -> Batch:
    """The batch where the model is."""
    return {name: tensor.to(world.device, non_blocking=True) for name, tensor in batch.items()}
