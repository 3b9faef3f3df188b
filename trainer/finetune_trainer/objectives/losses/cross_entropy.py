"""Cross entropy for large vocabularies: loss and gradient in one pass, with float32 scores for a few rows at a time.

The plain way keeps logits, their float32 copy and its log-softmax alive until the backward pass; at 128k entries these
dwarf the model's activations. Here only the gradient stays, in the logits' own precision.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from finetune_trainer.data.loading.collate import IGNORE_INDEX

# float32 numbers in a chunk: what stays in a processor's cache, or enough to keep a GPU busy.
_SCORES_AT_ONCE = {"cpu": 2**20, "cuda": 2**24}


def summed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Sum of -log p(label) over rows whose label is not IGNORE_INDEX; logits [rows, entries], labels [rows] -> float32 [].

    `smoothing` is the share of the label's probability that all entries have in common (Szegedy et al. 2016,
    arXiv:1512.00567).
    """
    total: torch.Tensor = _SummedCrossEntropy.apply(logits, labels, smoothing)
    return total


def perplexity(loss: float) -> dict[str, float]:
    """The metric for a mean loss, unless it exceeds the largest float."""
    return {"perplexity": math.exp(loss)} if loss < 700 else {}


def guesses(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many of the labels have the highest score, and how many labels there are [2]; scores [..., classes], labels [...]."""
    return torch.stack([(scores.argmax(-1) == labels).sum(), (labels != IGNORE_INDEX).sum()]).double()


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        # Half precision has too small an exponent for unscaled probabilities; bfloat16 has float32's.
        kept_as = logits.dtype if logits.dtype == torch.bfloat16 else torch.float32
        gradient = torch.empty_like(logits, dtype=kept_as) if ctx.needs_input_grad[0] else None
        rows = max(1, _SCORES_AT_ONCE[logits.device.type] // logits.shape[-1])
        for start in range(0, logits.shape[0], rows):
            chunk = slice(start, start + rows)
            learnt = labels[chunk] != IGNORE_INDEX
            target = labels[chunk].clamp(min=0)[:, None]
            scores = torch.log_softmax(logits[chunk].float(), dim=-1)
            told = scores.gather(1, target)[:, 0]
            if smoothing:
                told = (1 - smoothing) * told + smoothing * scores.mean(1)
            total -= told.where(learnt, 0.0).sum()
            if gradient is not None:
                scores.exp_().scatter_add_(1, target, torch.full_like(target, smoothing - 1, dtype=scores.dtype))
                if smoothing:
                    scores -= smoothing / scores.shape[1]
                gradient[chunk] = scores.masked_fill_(~learnt[:, None], 0.0)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # In place, as no one else will see it; autograd itself refuses a second backward over a tensor changed like this.
        return gradient.mul_(outer[0]).to(ctx.dtype), None, None
