"""The progress of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from finetune_trainer.tracking.history import History
from finetune_trainer.training.loss_anomaly import AnomalyRecord


@dataclass
class TrainState:
    """The number of finished optimizer steps, their history and anomalies; a checkpoint stores it with the engine's state."""

    step: int = 0
    history: History = field(default_factory=History)
    anomalies: AnomalyRecord = field(default_factory=AnomalyRecord)

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values, for a checkpoint."""
        return {"step": self.step, "history": self.history.to_dict(), "anomalies": self.anomalies.to_dict()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> TrainState:
        """Restore the state that `to_dict` returned."""
        return cls(state["step"], History.from_dict(state["history"]), AnomalyRecord.from_dict(state["anomalies"]))
