"""How the training state is distributed over files, which determines which runs can read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from finetune_trainer.protocol.outcome import ConfigurationError


@dataclass(frozen=True)
class Topology:
    """ZeRO stage, number of ranks, and the model's number format."""

    zero_stage: int
    world_size: int
    precision: str

    @classmethod
    def of(cls, engine: Any, world_size: int) -> Self:
        """The topology of a DeepSpeed engine."""
        precision = "float32"
        if engine.bfloat16_enabled():
            precision = "bfloat16"
        elif engine.fp16_enabled():
            precision = "float16"
        return cls(int(engine.zero_optimization_stage()), world_size, precision)

    def can_read(self, stored: Topology) -> bool:
        """Whether this topology can load the files of `stored` without a conversion."""
        if self.zero_stage == 0 and stored.zero_stage == 0:
            # Every rank has the whole state.
            return self.precision == stored.precision
        return self == stored

    def validate_conversion_from(self, stored: Topology) -> None:
        """Raise ConfigurationError where `stored` cannot be converted to this topology."""
        if self.can_read(stored):
            return
        if _universal_format(self.zero_stage) != _universal_format(stored.zero_stage):
            raise ConfigurationError(
                f"spec.deepspeed.zeroStage: the checkpoint is of stage {stored.zero_stage}, which cannot be converted to stage "
                f"{self.zero_stage}: restore the old stage, or choose an empty spec.checkpoint.storage"
            )
        if self.zero_stage == 0:
            raise ConfigurationError(
                f"spec.training.precision: the checkpoint is of stage 0 in {stored.precision}, which cannot be converted to "
                f"{self.precision}: restore the old precision, or choose an empty spec.checkpoint.storage"
            )


def _universal_format(zero_stage: int) -> str:
    """Stages with the same format of universal checkpoints: 1 and 2 keep whole parameters, 3 uses other names and contents."""
    return {0: "whole", 3: "parameters"}.get(zero_stage, "optimizer")
