"""One optimizer step: forward and backward passes over this rank's micro-batches, and the update of the weights."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from finetune_trainer.config import TrainingConfig
from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.methods.components.unfreezing import GradualUnfreezing
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol import heartbeat
from finetune_trainer.training.compute_timer import ComputeTimer
from finetune_trainer.training.engine import discard_gradients, skips_overflow, take_optimizer_step
from finetune_trainer.training.loss_anomaly import Anomaly, AnomalyRecord, find_loss_anomaly
from finetune_trainer.training.lr_schedule import learning_rate_factor
from finetune_trainer.training.regularization import Regularizer

log = logging.getLogger(__name__)


class StepResult(NamedTuple):
    """Mean loss over all ranks, L2 norm of the gradients before clipping, and learning rate of one step.

    `forward_seconds` is the duration of this rank's forward passes. With an anomaly the weights are unchanged. `contributions`
    has what each micro-batch of this rank adds to the loss.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    forward_seconds: float
    anomaly: Anomaly | None
    contributions: list[torch.Tensor]


@dataclass(frozen=True)
class TrainStep:
    """Computes optimizer steps; all ranks call its methods together."""

    engine: Any
    objective: Objective
    group: ProcessGroup
    training: TrainingConfig
    total_steps: int
    regularizer: Regularizer | None = None
    unfreezing: GradualUnfreezing | None = None
    timer: ComputeTimer = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "timer", ComputeTimer(self.group.device))

    def count_terms(self, micro_batches: list[MicroBatch]) -> list[float]:
        """The number of terms that this rank's micro-batches add to each loss of the objective."""
        losses = range(len(self.objective.loss.names))
        return [sum(micro_batch.terms[index] for micro_batch in micro_batches) for index in losses]

    def run(
        self, step: int, micro_batches: list[MicroBatch], term_counts: list[float], anomalies: AnomalyRecord
    ) -> StepResult:  # fmt: skip
        """Take the step with this number, counted from 1; `term_counts` is the sum of `count_terms` over all ranks.

        The gradient is that of (sum of all terms on all ranks) / (number of terms), added up over the losses. DeepSpeed
        averages gradients over ranks, which multiplying by the number of ranks undoes; its division by the number of
        micro-batches is turned off. A regularization penalty counts once and is not part of the returned loss.
        """
        inverse_counts = [1 / count if count else 0.0 for count in term_counts]
        scale = torch.tensor(inverse_counts, device=self.group.device)
        contributions = []
        if self.unfreezing:
            self.unfreezing.begin_step(step)
        batches = [micro_batch.batch.to(self.group.device) for micro_batch in micro_batches]
        prepared = self.objective.loss.prepare_step(self.engine, batches, self.group)
        for index, batch in enumerate(prepared):
            is_last = index == len(prepared) - 1
            self.engine.set_gradient_accumulation_boundary(is_last)
            with self.timer.measure():
                loss = (self.objective.loss.loss_sum(self.engine, batch) * scale).sum()
            contributions.append(loss.detach())
            heartbeat.beat()
            if self.regularizer and is_last:
                loss = loss + self.regularizer.penalty() / self.group.size
            self.engine.backward(loss * self.group.size, scale_wrt_gas=False)
            heartbeat.beat()
        factor = learning_rate_factor(self.training.schedule, step, self.total_steps)
        learning_rate = self.training.optimizer.learning_rate * factor
        # Known before the optimizer step, which an anomaly must not take; the same number on all ranks.
        mean_loss = self.group.sums(float(sum(contributions)))[0]
        anomaly = find_loss_anomaly(mean_loss, anomalies, self.training.loss_anomaly)
        if anomaly:
            discard_gradients(self.engine)
            norm = math.nan
        else:
            norm = take_optimizer_step(self.engine, learning_rate, self.training.max_gradient_norm)
            anomaly = self._find_norm_anomaly(step, norm)
        return StepResult(mean_loss, norm, learning_rate, self.timer.take(), anomaly, contributions)

    def _find_norm_anomaly(self, step: int, norm: float) -> Anomaly | None:
        """What is wrong with the gradient norm, which is the same on all ranks; None if nothing is."""
        if math.isfinite(norm):
            return None
        if math.isinf(norm) and skips_overflow(self.engine):
            log.warning("step %d: a gradient overflowed; the step is skipped and the loss scale lowered", step)
            return None
        return Anomaly(f"the gradient norm became {norm}")

    def shares_of_terms(self, micro_batches: list[MicroBatch], term_counts: list[float]) -> list[float]:
        """The share of each of this rank's micro-batches in the terms of the step, added up over the losses."""
        return [
            sum(own / count for own, count in zip(micro_batch.terms, term_counts, strict=True) if count)
            for micro_batch in micro_batches
        ]
