"""Cross entropy for large vocabularies: loss and gradient in one pass, with float32 scores for a few rows at a time.

torch's own keeps logits, their float32 copy and its log-softmax alive until the backward pass; at 128k entries these dwarf the
model's activations. Here only the gradient remains, in the precision of the logits.
"""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.data.loading.collate import IGNORE_INDEX

# float32 numbers in a chunk: as many as fit in a processor's cache, or keep a GPU busy.
_SCORES_AT_ONCE = {"cpu": 2**20, "cuda": 2**24}


def summed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Sum of -log p(label) over rows whose label is not IGNORE_INDEX; logits [rows, entries], labels [rows] -> float32 [].

    `smoothing` is the share of the label's probability that is spread over all entries (Szegedy et al. 2016, arXiv:1512.00567).
    """
    total: torch.Tensor = _SummedCrossEntropy.apply(logits, labels, smoothing)
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        # Half precision has too small an exponent for unscaled probabilities; bfloat16 has float32's.
        gradient_dtype = logits.dtype if logits.dtype == torch.bfloat16 else torch.float32
        gradient = torch.empty_like(logits, dtype=gradient_dtype) if ctx.needs_input_grad[0] else None
        rows = max(1, _SCORES_AT_ONCE[logits.device.type] // logits.shape[-1])
        for start in range(0, logits.shape[0], rows):
            chunk = slice(start, start + rows)
            is_label = labels[chunk] != IGNORE_INDEX
            target = labels[chunk].clamp(min=0)[:, None]
            scores = torch.log_softmax(logits[chunk].float(), dim=-1)
            log_probability = scores.gather(1, target)[:, 0]
            if smoothing:
                log_probability = (1 - smoothing) * log_probability + smoothing * scores.mean(1)
            total -= log_probability.where(is_label, 0.0).sum()
            if gradient is not None:
                scores.exp_().scatter_add_(1, target, torch.full_like(target, smoothing - 1, dtype=scores.dtype))
                if smoothing:
                    scores -= smoothing / scores.shape[1]
                gradient[chunk] = scores.masked_fill_(~is_label[:, None], 0.0)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # In place, as the tensor has no other user; autograd refuses a second backward pass over a tensor changed like this.
        return gradient.mul_(outer[0]).to(ctx.dtype), None, None
