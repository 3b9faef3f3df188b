"""How an objective calls the model: with a batch, or past DeepSpeed's engine."""

from __future__ import annotations

from typing import Any


def forward(model: Any, batch: dict[str, Any], **settings: Any) -> Any:
    """The model's outputs for a batch; what is for the loss alone, the labels, stays here."""
    return model(**{name: tensor for name, tensor in batch.items() if not name.endswith("labels")}, **settings)


def unwrap_model(model: Any) -> Any:
    """The model itself, also where DeepSpeed's engine stands around it."""
    return getattr(model, "module", model)
