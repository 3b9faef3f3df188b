"""Loss and metrics on the evaluation data: each row counts once at every world size, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import Objective
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import NonFiniteLossError
from finetune_trainer.tracking.history import FEW_SHOT
from finetune_trainer.training.batches import BatchSource


class EvaluationResult(NamedTuple):
    """Metrics by name and tables, such as a confusion matrix, as JSON by name."""

    metrics: dict[str, float]
    tables: dict[str, Any]

    def with_few_shot(self, few_shot: EvaluationResult) -> EvaluationResult:
        """Add the result of the few-shot evaluation, each name prefixed with `fewShot.`."""
        metrics = {FEW_SHOT + name: value for name, value in few_shot.metrics.items()}
        tables = {FEW_SHOT + name: table for name, table in few_shot.tables.items()}
        return EvaluationResult(self.metrics | metrics, self.tables | tables)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the engine's model on the evaluation data."""

    engine: Any
    objective: Objective
    group: ProcessGroup
    batches: BatchSource

    @property
    def has_data(self) -> bool:
        """Whether there is evaluation data."""
        return self.batches.evaluation is not None

    def evaluate(self, should_continue: Callable[[], bool]) -> EvaluationResult | None:
        """The model's metrics and tables; None if the evaluation was interrupted."""
        assert self.batches.evaluation is not None, "there is no evaluation data"
        return evaluate(self.engine, self.objective, self.batches.evaluation(), self.group, should_continue)

    def evaluate_start(self, should_continue: Callable[[], bool]) -> EvaluationResult | None:
        """The starting model's metrics and tables, zero-shot and, if the document asks for it, few-shot."""
        zero_shot = self.evaluate(should_continue)
        if zero_shot is None or self.batches.few_shot is None:
            return zero_shot
        few_shot = evaluate(self.engine, self.objective, self.batches.few_shot(), self.group, should_continue)
        return None if few_shot is None else zero_shot.with_few_shot(few_shot)


def evaluate(
    engine: Any,
    objective: Objective,
    steps: Iterable[list[MicroBatch]],
    group: ProcessGroup,
    should_continue: Callable[[], bool],
) -> EvaluationResult | None:
    """The objective's metrics and tables over all ranks' micro-batches; None if the evaluation was interrupted.

    Every rank must bring the same number of lists with the same number of micro-batches each, since ZeRO-3 gathers parameters
    in lockstep; a rank without rows left brings a batch without terms. `should_continue` is called before each list on every
    rank and must return the same answer on all of them. Raises NonFiniteLossError.
    """
    count = len(objective.loss.names)
    # For each loss the sum of its terms, followed by the number of terms of each loss.
    loss_sums = torch.zeros(2 * count, dtype=torch.float64)
    statistics = torch.zeros(0, dtype=torch.float64)
    engine.eval()
    try:
        with torch.no_grad():
            for micro_batches in steps:
                if not should_continue():
                    return None
                batches = [micro_batch.batch.to(group.device) for micro_batch in micro_batches]
                prepared = objective.loss.prepare_step(engine, batches, group)
                for batch, micro_batch in zip(prepared, micro_batches, strict=True):
                    measured = objective.metrics.measure(engine, batch)
                    heartbeat.beat()
                    terms = torch.tensor(micro_batch.terms, dtype=torch.float64)
                    loss_sums += torch.cat([measured.losses.double().cpu(), terms])
                    statistics = measured.statistics.cpu() + (statistics if len(statistics) else 0)
    finally:
        engine.train()
    totals = group.all_reduce_sum(torch.cat([loss_sums, statistics])).numpy()
    term_counts = totals[count : 2 * count]
    losses = np.divide(totals[:count], term_counts, out=np.zeros(count), where=term_counts > 0)
    if not np.isfinite(losses).all():
        raise NonFiniteLossError("the loss on the evaluation data is not finite: lower spec.training.optimizer.learningRate")
    # Metrics computed from equal sums may differ in the last bit between machines. They decide when all ranks stop, so every
    # rank uses those of rank 0.
    with heartbeat.while_busy():
        computed = objective.metrics.compute(losses.tolist(), totals[2 * count :])
    metrics: dict[str, float] = group.broadcast(computed)
    return EvaluationResult(metrics, objective.metrics.tables(totals[2 * count :]))
