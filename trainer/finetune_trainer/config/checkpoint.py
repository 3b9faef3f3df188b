"""Where and how often checkpoints are stored."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, SecretName, Section, WritableURI


class CheckpointConfig(Section):
    """Where training state is stored and how often; a run resumes from its newest checkpoint there."""

    storage: WritableURI
    credentials: SecretName | None = None
    every_steps: int | None = Field(None, ge=1, description="Optimizer steps between checkpoints.")
    every_minutes: float | None = Field(None, gt=0, description="Minutes between checkpoints; 30 if everySteps is absent too.")
    keep_last: int = Field(2, ge=1, le=1000, description="Number of checkpoints to keep; older ones are deleted.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.everySteps) || !has(self.everyMinutes)",
            "the interval is given twice: keep either checkpoint.everySteps or checkpoint.everyMinutes",
            "everyMinutes",
        ),
    )
