"""Loss and metrics on the evaluation data: every row once, whatever the number of ranks, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from finetune_trainer.data.loading.collate import to_device
from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import Objective
from finetune_trainer.protocol.outcome import NonFiniteLossError

FEW_SHOT = "fewShot."


class EvaluationResult(NamedTuple):
    """Numbers by name, and what is reported beside them: tables as JSON by name."""

    metrics: dict[str, float]
    tables: dict[str, Any]

    def beside(self, shown: EvaluationResult) -> EvaluationResult:
        """With another result, in whose evaluation there were examples before each row."""
        metrics, tables = ({FEW_SHOT + name: value for name, value in found.items()} for found in shown)
        return EvaluationResult(self.metrics | metrics, self.tables | tables)


def evaluate(
    engine: Any, objective: Objective, groups: Iterable[list[MicroBatch]], world: ProcessGroup, go_on: Callable[[], bool]
) -> EvaluationResult | None:
    """The objective's metrics and tables over all ranks' batches; None if the evaluation was broken off.

    Every rank must bring the same number of groups and of batches in each, since ZeRO-3 gathers parameters in lockstep; one
    that has no rows left brings a batch without terms. `go_on` is asked before each group, on all ranks, and must give the same
    answer on all. Raises NonFiniteLossError.
    """
    count = len(objective.losses)
    summed = torch.zeros(2 * count, dtype=torch.float64)  # each loss's terms: their sum, then their number
    statistics = torch.zeros(0, dtype=torch.float64)
    engine.eval()
    try:
        with torch.no_grad():
            for group in groups:
                if not go_on():
                    return None
                batches = [to_device(batch.inputs, world.device) for batch in group]
                objective.prepare_step(engine, batches, world)
                for batch, (_, terms, *_) in zip(batches, group, strict=True):
                    found = objective.measure(engine, batch)
                    summed += torch.cat([found.losses.double().cpu(), torch.tensor(terms, dtype=torch.float64)])
                    statistics = found.statistics.cpu() + (statistics if len(statistics) else 0)
    finally:
        engine.train()
    totals = world.all_reduce_sum(torch.cat([summed, statistics])).numpy()
    numbers = totals[count : 2 * count]
    losses = np.divide(totals[:count], numbers, out=np.zeros(count), where=numbers > 0)
    if not np.isfinite(losses).all():
        raise NonFiniteLossError("the loss on the evaluation data is not finite: lower spec.training.optimizer.learningRate")
    # What is computed from equal sums may still differ in its last bit on another machine, and decides when all ranks stop.
    metrics: dict[str, float] = world.broadcast(objective.metrics(losses.tolist(), totals[2 * count :]))
    return EvaluationResult(metrics, objective.tables(totals[2 * count :]))
