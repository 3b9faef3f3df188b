"""Predict each token from those before it (Radford et al. 2018)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from finetune_trainer.objectives.base import Batch, Objective
from finetune_trainer.objectives.cross_entropy import IGNORED, summed_cross_entropy


class CausalLM(Objective):
    """Cross entropy of the next token, in float32, over the positions whose label is not -100.

    A batch has `input_ids`, `labels` and, where given, `position_ids` and `attention_mask`, all [sequences, tokens]. Labels
    stand at their own token's position, as in transformers; the shift by one happens here.
    """

    task: ClassVar[str] = "text-generation"

    def count(self, batch: Batch) -> int:
        """Tokens predicted: the first of a sequence never is."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed cross entropy of `model` on the batch."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs, use_cache=False).logits
        # Shifting the labels instead of the logits spares a copy of the largest tensor there is.
        following = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
        return summed_cross_entropy(logits.flatten(0, 1), following.flatten())

    def metrics(self, loss: float) -> dict[str, float]:
        """Loss and perplexity, the latter unless it exceeds the largest float."""
        return {"loss": loss} | ({"perplexity": math.exp(loss)} if loss < 700 else {})
