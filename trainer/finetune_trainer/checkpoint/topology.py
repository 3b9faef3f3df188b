"""How training state is spread over files, which decides who can read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from finetune_trainer.outcome import ConfigurationError


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

    def insist_on_way_from(self, stored: Topology) -> None:
        """Raises ConfigurationError where not even a conversion leads from `stored` to here."""
        if 0 in (self.zero_stage, stored.zero_stage) and not self.reads(stored):
            what = "spec.deepspeed.zeroStage" if self.zero_stage != stored.zero_stage else "spec.training.precision"
            raise ConfigurationError(
                f"{what}: the checkpoint was written by ZeRO stage {stored.zero_stage} in {stored.precision} and cannot be "
                f"converted to stage {self.zero_stage} in {self.precision}: restore the old setting, or choose an empty "
                "spec.checkpoint.storage"
            )
