"""What an objective is to the loop: a loss as a sum of terms, how many terms, and names for what comes out."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch

Batch = dict[str, torch.Tensor]


class Objective(Protocol):
    """One way to learn.

    The loss is a sum over terms (for language models: predicted tokens) beside the number of terms, never a mean: only sums
    add up to the same number at every world size and accumulation.
    """

    task: ClassVar[str]
    """The `transformers.pipeline` task that the exported model serves."""

    def count(self, batch: Batch) -> int:
        """Number of terms in the batch's loss; it needs no model, so that it is known before the first forward."""
        ...

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Sum of the batch's terms, a float32 scalar to differentiate, from one call of `model`."""
        ...

    def metrics(self, loss: float) -> dict[str, float]:
        """What an evaluation reports for a mean loss; `loss` itself is always among it."""
        ...
