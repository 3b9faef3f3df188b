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
from finetune_trainer.protocol.outcome import NonFiniteLossError
from finetune_trainer.training.compute_timer import ComputeTimer
from finetune_trainer.training.engine import skips_overflow, take_optimizer_step
from finetune_trainer.training.lr_schedule import learning_rate_factor
from finetune_trainer.training.regularization import Regularizer

log = logging.getLogger(__name__)


class StepResult(NamedTuple):
    """Mean loss over all ranks, L2 norm of the gradients before clipping, and learning rate of one step.

    `forward_seconds` is the duration of this rank's forward passes.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    forward_seconds: float


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

    def run(self, step: int, micro_batches: list[MicroBatch], term_counts: list[float]) -> StepResult:
        """Take the step with this number, counted from 1; `term_counts` is the sum of `count_terms` over all ranks.

        The gradient is that of (sum of all terms on all ranks) / (number of terms), added up over the losses. DeepSpeed
        averages gradients over ranks, which multiplying by the number of ranks undoes; its division by the number of
        micro-batches is turned off. A regularization penalty counts once and is not part of the returned loss.
        """
        inverse_counts = [1 / count if count else 0.0 for count in term_counts]
        scale = torch.tensor(inverse_counts, device=self.group.device)
        total = torch.zeros((), device=self.group.device)
        if self.unfreezing:
            self.unfreezing.begin_step(step)
        batches = [micro_batch.batch.to(self.group.device) for micro_batch in micro_batches]
        prepared = self.objective.loss.prepare_step(self.engine, batches, self.group)
        for index, batch in enumerate(prepared):
            is_last = index == len(prepared) - 1
            self.engine.set_gradient_accumulation_boundary(is_last)
            with self.timer.measure():
                loss = (self.objective.loss.loss_sum(self.engine, batch) * scale).sum()
            total += loss.detach()
            heartbeat.beat()
            if self.regularizer and is_last:
                loss = loss + self.regularizer.penalty() / self.group.size
            self.engine.backward(loss * self.group.size, scale_wrt_gas=False)
            heartbeat.beat()
        factor = learning_rate_factor(self.training.schedule, step, self.total_steps)
        learning_rate = self.training.optimizer.learning_rate * factor
        norm = take_optimizer_step(self.engine, learning_rate, self.training.max_gradient_norm)
        mean_loss = self.group.sums(float(total))[0]
        return StepResult(mean_loss, norm, learning_rate, self.timer.take())

    def validate_finite(self, step: int, result: StepResult, saved_step: int) -> None:
        """Raise NonFiniteLossError if the loss or the gradient norm is not finite; `saved_step` is the last checkpoint's.

        Both numbers are the same on all ranks, so either all of them raise or none does.
        """
        loss, norm = result.loss, result.gradient_norm
        if math.isfinite(loss) and math.isfinite(norm):
            return
        if math.isfinite(loss) and math.isinf(norm) and skips_overflow(self.engine):
            log.warning("step %d: a gradient overflowed; the step is skipped and the loss scale lowered", step)
            return
        problem = f"the gradient norm became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
        checkpoint = f"the last good checkpoint is that of step {saved_step}" if saved_step else "there is no checkpoint yet"
        raise NonFiniteLossError(
            f"step {step}: {problem} ({checkpoint}): lower spec.training.optimizer.learningRate, increase "
            "spec.training.schedule.warmupSteps, or check the data for broken rows"
        )
