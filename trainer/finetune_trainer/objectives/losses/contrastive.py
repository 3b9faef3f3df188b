"""Cross entropy of each row's right candidate among those of all rows of the step, on all ranks: InfoNCE.

InfoNCE: van den Oord et al. 2018 (arXiv:1807.03748); cached gradients: Gao et al. 2021 (arXiv:2101.06983).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import Loss
from finetune_trainer.protocol import heartbeat

Views = tuple[torch.Tensor, ...]
"""Embeddings of some rows, each [n, width] float32. The first view has one for each row; the others may have any number."""

SCORES_AT_ONCE = 2**26
"""Numbers in a chunk of the scores, so that more rows need no more memory for them."""


class Comparison(NamedTuple):
    """For some rows the scores of all candidates [rows, candidates], and the index of the right candidate [rows] int64."""

    scores: torch.Tensor
    right: torch.Tensor


@dataclass
class RandomState:
    """The state of the host's random generator, and of the GPU's."""

    host: torch.Tensor
    gpu: torch.Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """The state now."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self) -> None:
        """Return to this state, so that dropout is drawn as it was then."""
        torch.set_rng_state(self.host)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu)


@dataclass
class ComparedBatch:
    """A batch whose rows have been compared with all rows of the step."""

    batch: Batch
    random_state: RandomState
    """The random state before its forward pass."""
    views: Views | None
    """Its embeddings, if they still have their graph; otherwise it needs a second forward pass."""
    losses: torch.Tensor
    """The loss of each row, [rows]."""
    ranks: torch.Tensor
    """The rank of each row's right candidate, from 1, [rows]."""
    gradients: Views
    """The gradient of the whole step's loss with respect to each embedding."""


class StepComparison(NamedTuple):
    """This rank's rows, compared with all rows of the step."""

    losses: torch.Tensor
    ranks: torch.Tensor
    gradients: Views


class ContrastiveLoss(Loss[ComparedBatch]):
    """Cross entropy of the right candidate, summed over the comparisons of each row.

    All batches of a step are embedded first, without gradients. The embeddings of all ranks are gathered, and the loss and its
    gradient with respect to each embedding are computed. Then each batch is embedded a second time, with the same dropout, and
    the cached gradient is propagated into the model. So a row is compared with all rows of its step, with the memory for one
    batch.
    """

    @abstractmethod
    def embed(self, model: Any, batch: Batch) -> Views:
        """The views of the batch's rows, from one forward pass."""

    @abstractmethod
    def compare(self, views: Views, rows: torch.Tensor) -> Sequence[Comparison]:
        """The comparisons of the rows with these indices, [rows] int64, with all rows of the views."""

    def prepare_step(self, model: Any, batches: Sequence[Batch], group: ProcessGroup) -> Sequence[ComparedBatch]:
        """Embed all batches, and compare their rows with those of all ranks."""
        has_gradients = torch.is_grad_enabled()
        keeps_graph = has_gradients and len(batches) == 1  # a single batch needs no second forward pass
        random_states, batch_views = [], []
        with torch.set_grad_enabled(keeps_graph):
            for batch in batches:
                random_states.append(RandomState.capture(group.device))
                batch_views.append(self.embed(model, batch))
                heartbeat.beat()
        compared = self._compare_step(_concatenate(batch_views), group, has_gradients)
        sizes = [len(views[0]) for views in batch_views]
        losses, ranks = torch.split(compared.losses, sizes), torch.split(compared.ranks, sizes)
        gradients = _split(compared.gradients, batch_views)
        prepared = []
        for index, batch in enumerate(batches):
            views = batch_views[index] if keeps_graph else None
            prepared.append(ComparedBatch(batch, random_states[index], views, losses[index], ranks[index], gradients[index]))
        return prepared

    def loss_sum(self, model: Any, batch: ComparedBatch) -> torch.Tensor:
        """The batch's share of the loss, [1]; its gradient is that of the whole step's loss through this batch."""
        views = batch.views
        if views is None:
            batch.random_state.restore()
            views = self.embed(model, batch.batch)
        # Its value is subtracted again: only its gradient is needed.
        surrogate = torch.zeros((), device=batch.losses.device)
        for view, gradient in zip(views, batch.gradients, strict=True):
            surrogate = surrogate + (view * gradient).sum()
        return (batch.losses.sum() + surrogate - surrogate.detach())[None]

    def _compare_step(self, own_views: Views, group: ProcessGroup, has_gradients: bool) -> StepComparison:
        """Compare this rank's rows with those of all ranks, a chunk of rows at a time."""
        gathered = [group.gather(view) for view in own_views]
        views = tuple(view.requires_grad_(has_gradients) for view, _ in gathered)
        first_row = gathered[0][1]
        rows = torch.arange(first_row, first_row + len(own_views[0]), device=group.device)
        chunk_size = max(1, SCORES_AT_ONCE // max(1, sum(map(len, views))))
        losses, ranks = [], []
        for chunk in torch.split(rows, chunk_size):
            comparisons = self.compare(views, chunk)
            terms = [functional.cross_entropy(*comparison, reduction="none") for comparison in comparisons]
            loss = torch.stack(terms).sum(0)
            if has_gradients:
                torch.autograd.backward(loss.sum())
            losses.append(loss.detach())
            ranks.append(rank_right_candidates(comparisons[0]))
        gradients = []
        for own_view, (view, begin) in zip(own_views, gathered, strict=True):
            if has_gradients:
                assert view.grad is not None, "every view takes part in a comparison, so each has a gradient"
                gradients.append(group.all_reduce_sum(view.grad)[begin : begin + len(own_view)])
            else:
                gradients.append(torch.zeros_like(own_view))
        return StepComparison(torch.cat(losses), torch.cat(ranks), tuple(gradients))


def rank_right_candidates(comparison: Comparison) -> torch.Tensor:
    """The rank of the right candidate by its score, from 1, [rows]; of equal scores the earlier candidate ranks first."""
    scores, right = comparison.scores.detach(), comparison.right[:, None]
    right_score = scores.gather(1, right)
    is_earlier = torch.arange(scores.shape[1], device=scores.device) < right
    return 1 + ((scores > right_score) | (scores == right_score) & is_earlier).sum(1)


def _concatenate(batch_views: Sequence[Views]) -> Views:
    """The views of all batches as one, without their graph."""
    return tuple(torch.cat(parts).detach() for parts in zip(*batch_views, strict=True))


def _split(whole: Views, batch_views: Sequence[Views]) -> list[Views]:
    """Each batch's part of what was concatenated: the inverse of `_concatenate`."""
    parts = []
    for index, view in enumerate(whole):
        parts.append(torch.split(view, [len(views[index]) for views in batch_views]))
    return list(zip(*parts, strict=True))
