"""Whether the loss of a step is an anomaly, and what follows it: pure functions of numbers that all ranks share."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from finetune_trainer.config import LossAnomalyConfig
from finetune_trainer.protocol.outcome import MAX_ANOMALY_CHARACTERS, LossAnomalies, LossSpikeError, NonFiniteLossError
from finetune_trainer.training.skipped_batches import SkippedBatches

WINDOW = 100
MIN_LOSSES = 20


class Anomaly(NamedTuple):
    """Why the weights are not updated with the gradient of a step."""

    problem: str
    is_spike: bool = False


@dataclass
class AnomalyRecord:
    """The anomalies of a run, as far as later decisions depend on them; part of a checkpoint."""

    recent_losses: list[float] = field(default_factory=list)
    """The last losses that were no anomaly, if spikes are looked for."""
    consecutive: int = 0
    """Steps skipped in a row, or returns to the checkpoint of `checkpoint_step`."""
    checkpoint_step: int | None = None
    skipped_batches: SkippedBatches = field(default_factory=SkippedBatches)
    total: LossAnomalies = field(default_factory=LossAnomalies)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, for a checkpoint."""
        return {
            "recent_losses": list(self.recent_losses),
            "consecutive": self.consecutive,
            "checkpoint_step": self.checkpoint_step,
            "skipped_batches": self.skipped_batches.to_list(),
            "total": self.total.document(),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> AnomalyRecord:
        """Restore the record that `to_dict` returned."""
        skipped, total = SkippedBatches.from_list(state["skipped_batches"]), LossAnomalies.model_validate(state["total"])
        return cls(list(state["recent_losses"]), state["consecutive"], state["checkpoint_step"], skipped, total)

    def add_loss(self, loss: float, config: LossAnomalyConfig) -> None:
        """Count a step whose gradient was used."""
        if config.action == "SkipStep":
            self.consecutive = 0
        if config.spike_ratio is not None:
            self.recent_losses = [*self.recent_losses[1 - WINDOW :], loss]

    def skip_step(self, message: str) -> None:
        """Count a step whose gradient was not used."""
        self.consecutive += 1
        skipped = self.total.skipped_steps + 1
        self.total = self.total.model_copy(update={"skipped_steps": skipped, "message": message[:MAX_ANOMALY_CHARACTERS]})

    def roll_back(self, restored: AnomalyRecord, step: int, failed_step: int, message: str) -> AnomalyRecord:
        """The record of the run that returns to the checkpoint of `step`, which has the record `restored`."""
        total = self.total.model_copy(
            update={"roll_backs": self.total.roll_backs + 1, "message": message[:MAX_ANOMALY_CHARACTERS]}
        )
        consecutive = self.consecutive + 1 if self.checkpoint_step == step else 1
        skipped = self.skipped_batches.after_roll_back(step, failed_step)
        return replace(restored, consecutive=consecutive, checkpoint_step=step, skipped_batches=skipped, total=total)


def find_loss_anomaly(loss: float, record: AnomalyRecord, config: LossAnomalyConfig) -> Anomaly | None:
    """What is wrong with the mean loss of a step over all ranks; None if nothing is."""
    if not math.isfinite(loss):
        return Anomaly(f"the loss became {loss}")
    if config.spike_ratio is None or len(record.recent_losses) < MIN_LOSSES:
        return None
    median = statistics.median(record.recent_losses)
    if median <= 0 or loss <= config.spike_ratio * median:
        return None
    return Anomaly(
        f"the loss of {loss:.4g} is {loss / median:.1f} times the median of the last {len(record.recent_losses)} losses",
        is_spike=True,
    )


def is_limit_reached(record: AnomalyRecord, config: LossAnomalyConfig, checkpoint_step: int) -> bool:
    """Whether one more anomaly fails the job; `checkpoint_step` is the step of the newest checkpoint."""
    if config.action == "RollBack" and record.checkpoint_step != checkpoint_step:
        return False
    return record.consecutive >= config.max_consecutive


def failure(
    message: str, anomaly: Anomaly, checkpoint_step: int, config: LossAnomalyConfig
) -> NonFiniteLossError | LossSpikeError:  # fmt: skip
    """The error that ends the run; `message` names the step, the value and the rows."""
    checkpoint = (
        f"the last good checkpoint is that of step {checkpoint_step}" if checkpoint_step else "there is no checkpoint yet"
    )
    tried, other = "", ""
    if config.action == "Fail":
        other = ", or set spec.training.lossAnomaly.action to SkipStep or RollBack"
    elif config.action == "RollBack" and not checkpoint_step:
        tried = "; RollBack needs a checkpoint: save earlier with spec.checkpoint.everySteps"
    else:
        done = "skipped steps in a row" if config.action == "SkipStep" else "returns to the same checkpoint"
        tried = f"; after {config.max_consecutive} {done} spec.training.lossAnomaly.maxConsecutive is reached"
    sentence = (
        f"{message} ({checkpoint}{tried}): lower spec.training.optimizer.learningRate, increase "
        f"spec.training.schedule.warmupSteps, or check these rows of the data{other}"
    )
    return LossSpikeError(sentence) if anomaly.is_spike else NonFiniteLossError(sentence)
