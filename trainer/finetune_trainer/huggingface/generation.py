"""Generation of text with transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from finetune_trainer.protocol import heartbeat


class _TokenHeartbeat(StoppingCriteria):  # type: ignore[misc]  # transformers has no types for it
    """Stops nothing; reports progress after each token."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        heartbeat.beat()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def token_heartbeat() -> StoppingCriteriaList:
    """The `stopping_criteria` of a call of `generate` that reports progress after each token."""
    return StoppingCriteriaList([_TokenHeartbeat()])
