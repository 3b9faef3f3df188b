"""Full fine-tuning: all weights are trained, except those that `spec.method.freeze` names."""

from __future__ import annotations

from typing import Any

from finetune_trainer.config.methods.full import FullConfig
from finetune_trainer.methods.base import Method, MethodContext


class Full(Method[FullConfig]):
    """Trains the model itself."""

    def apply(self, model: Any, context: MethodContext) -> Any:
        """Return the model unchanged."""
        return model
