"""How training state is spread over files, which decides who can read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from finetune_trainer.protocol.outcome import ConfigurationError


@dataclass(frozen=True)
class Topology:
    """ZeRO stage, ranks, and the model's number format."""

    zero_stage: int
    world_size: int
    precision: str

    @classmethod
    def of(cls, engine: Any, world_size: int) -> Self:
        """The topology of a DeepSpeed engine."""
        precision = "bfloat16" if engine.bfloat16_enabled() else "float16" if engine.fp16_enabled() else "float32"
        return cls(int(engine.zero_optimization_stage()), world_size, precision)

    def reads(self, stored: Topology) -> bool:
        """Whether this topology reads the files of `stored` as they are."""
        if self.zero_stage == 0 and stored.zero_stage == 0:
            # All state is whole on each rank.
            return self.precision == stored.precision
        return self == stored

    def validate_conversion_from(self, stored: Topology) -> None:
        """Raises ConfigurationError where not even a conversion leads from `stored` to here."""
        if self.reads(stored):
            return
        if _family(self.zero_stage) != _family(stored.zero_stage):
            raise ConfigurationError(
                f"spec.deepspeed.zeroStage: the checkpoint is of stage {stored.zero_stage}, which cannot be converted to stage "
                f"{self.zero_stage}: restore the old stage, or choose an empty spec.checkpoint.storage"
            )
        if self.zero_stage == 0:
            raise ConfigurationError(
                f"spec.training.precision: the checkpoint is of stage 0 in {stored.precision}, which cannot be converted to "
                f"{self.precision}: restore the old precision, or choose an empty spec.checkpoint.storage"
            )


def _family(zero_stage: int) -> str:
    """Stages whose universal checkpoints are alike: 1 and 2 keep whole parameters, 3 has names and contents of its own."""
    return {0: "whole", 3: "parameters"}.get(zero_stage, "optimizer")
