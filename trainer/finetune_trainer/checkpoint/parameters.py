"""The names and shapes of a model's parameters, which a checkpoint and the model that loads it must have in common."""

from __future__ import annotations

import hashlib
from typing import Any, Self

from pydantic import Field

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import ConfigurationError


class ParameterRecord(Section):
    """The parameters of a model."""

    count: int = Field(ge=0, description="Number of parameters.")
    digest: str = Field(description="SHA-256 of their names and shapes.")

    @classmethod
    def of(cls, module: Any) -> Self:
        """The parameters of a module, whether ZeRO has partitioned it or not."""
        count, digest = 0, hashlib.sha256()
        for name, parameter in module.named_parameters():
            shape = tuple(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO stage 3 replaces the tensor by an empty one
            count += getattr(parameter, "ds_numel", parameter.numel())
            digest.update(f"{name} {shape}\n".encode())
        return cls(count=count, digest=digest.hexdigest())

    def validate_same(self, current: ParameterRecord, run: str) -> None:
        """Raise ConfigurationError if `current` differs; `run` describes the run of the checkpoint."""
        if self.digest == current.digest:
            return
        difference = f"has {current.count:,} parameters and not {self.count:,} like"
        if self.count == current.count:
            difference = "has parameters of other names or shapes than"
        raise ConfigurationError(
            f"spec.model: the model {difference} that of {run}, because its source, its tokenizer or a library changed: "
            "restore the old one, or choose another spec.checkpoint.storage"
        )
