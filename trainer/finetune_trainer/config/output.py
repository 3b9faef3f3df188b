"""What the run leaves behind: checkpoints on the way and a model at the end."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import Rule, SecretName, Section, WritableURI


class CheckpointConfig(Section):
    """Where training state is kept and how often; a run that finds its own checkpoints there resumes from the newest."""

    storage: WritableURI
    credentials: SecretName | None = None
    every_steps: int | None = Field(None, ge=1, description="A checkpoint every so many steps.")
    every_minutes: float | None = Field(
        None, gt=0, description="A checkpoint every so many minutes; 30 when everySteps is absent too."
    )
    keep_last: int = Field(2, ge=1, le=1000, description="Older checkpoints are removed.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.everySteps) || !has(self.everyMinutes)",
            "the interval is given twice: keep either checkpoint.everySteps or checkpoint.everyMinutes",
            "everyMinutes",
        ),
    )


class ExportConfig(Section):
    """The finished model, as a folder that transformers.pipeline() loads."""

    storage: WritableURI | None = Field(None, description="Where the model goes; by default checkpoint.storage + /model.")
    credentials: SecretName | None = Field(None, description="As checkpoint.credentials, which is also the default.")
    merge_adapters: bool = Field(
        True, description="Whether adapters are added into the weights; off: the folder holds the adapter alone."
    )
    best: bool = Field(
        False,
        description="Whether the model is the one that was best in evaluation.metric instead of the last. Each new best is "
        "checkpointed, and kept beside the last ones.",
    )
