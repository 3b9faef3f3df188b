"""Rows told from all others of their step, whichever batch and rank those are in: InfoNCE with cached gradients.

InfoNCE: van den Oord et al. 2018 (arXiv:1807.03748); cached gradients: Gao et al. 2021 (arXiv:2101.06983).
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModel

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import BatchStatistics, Objective

Views = tuple[torch.Tensor, ...]
"""Embeddings of some rows, each [n, width] float32. The first has one of each row; the others may have any number."""

RandomState = tuple[torch.Tensor, torch.Tensor | None]
"""Of the host's generator, and of the GPU's."""

SCORES_AT_ONCE = 2**26  # numbers in a chunk of the scores, which so need no more memory when there are more rows
NEAR = 5  # how far down the second recall looks


class Contest(NamedTuple):
    """For some rows the scores of all candidates [rows, candidates], and which of them is the right one [rows] int64."""

    scores: torch.Tensor
    right: torch.Tensor


class Contrast:
    """Cross entropy of the right candidate, summed over the contests of each row.

    Every batch is embedded twice. First all of a step, without gradients; the embeddings of all ranks are gathered, and the
    loss and its gradient with respect to each of them are computed. Then batch by batch, with the dropout of the first time,
    and this gradient goes on into the model. So a row meets all others of its step with the memory for one batch.
    """

    def __init__(
        self, embed: Callable[[Any, Batch], Views], contests: Callable[[Views, torch.Tensor], Sequence[Contest]]
    ) -> None:
        """`embed(model, batch)` calls the model once; `contests(views, rows)` are those of the rows with these indices."""
        self._embed = embed
        self._contests = contests
        self._ahead: deque[_Seen] = deque()

    def prepare_step(self, model: Any, batches: Sequence[Batch], world: ProcessGroup) -> None:
        """Compares the rows of all batches on all ranks; after it each batch, in turn, is to be learnt from or measured."""
        learns = torch.is_grad_enabled()
        alone = learns and len(batches) == 1  # its activations can stay, which saves the second pass
        with torch.set_grad_enabled(alone):
            drawn, views = zip(*((_random_state(world.device), self._embed(model, batch)) for batch in batches), strict=True)
        whole = tuple(torch.cat(each).detach() for each in zip(*views, strict=True))
        losses, places, gradients = self._compare(whole, world, learns)
        sizes = [len(own[0]) for own in views]
        kept = views if alone else [None] * len(batches)
        columns = (drawn, kept, torch.split(losses, sizes), torch.split(places, sizes), _dealt(gradients, views))
        self._ahead = deque(_Seen(*of_batch) for of_batch in zip(*columns, strict=True))

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The next batch's share of the loss []; its gradient is that of the whole step's loss by way of this batch."""
        seen = self._ahead.popleft()
        if seen.views is None:
            _draw_again(seen.drawn)
        pull = torch.zeros((), device=seen.losses.device)
        for view, gradient in zip(seen.views or self._embed(model, batch), seen.gradients, strict=True):
            pull = pull + (view * gradient).sum()
        return seen.losses.sum() + pull - pull.detach()

    def measured(self) -> BatchStatistics:
        """Of the next batch, which needs no second pass, the loss beside what `retrieval` is computed from."""
        seen = self._ahead.popleft()
        places = seen.places.double()
        found = torch.stack([places == 1, places <= NEAR, places.reciprocal(), torch.ones_like(places)]).sum(1)
        return BatchStatistics(seen.losses.sum()[None], found)

    def _compare(self, mine: Views, world: ProcessGroup, learns: bool) -> tuple[torch.Tensor, torch.Tensor, Views]:
        """Loss [n] of each of this rank's rows, the place [n] of its right candidate, and the gradients of its views."""
        gathered = [world.gather(view) for view in mine]
        views = tuple(everyones.requires_grad_(learns) for everyones, _ in gathered)
        first = gathered[0][1]
        rows = torch.arange(first, first + len(mine[0]), device=world.device)
        losses, places = [], []
        for chunk in torch.split(rows, max(1, SCORES_AT_ONCE // max(1, sum(map(len, views))))):
            contests = self._contests(views, chunk)
            loss = torch.stack([functional.cross_entropy(*contest, reduction="none") for contest in contests]).sum(0)
            if learns:
                torch.autograd.backward(loss.sum())
            losses.append(loss.detach())
            places.append(_places(contests[0]))
        gradients = tuple(
            _summed_gradient(everyones, world)[begin : begin + len(own)] if learns else torch.zeros_like(own)
            for own, (everyones, begin) in zip(mine, gathered, strict=True)
        )
        return torch.cat(losses), torch.cat(places), gradients


class Contrastive(Objective):
    """An objective that compares rows with each other; what it is over says how rows are embedded and compared."""

    auto_class: ClassVar[Any] = AutoModel
    has_new_head: ClassVar[bool] = True  # some families have a pooler, which is not used here and often not there

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        self._contrast = Contrast(self._embed, self._contests)

    def prepare_step(self, model: Any, batches: Sequence[Batch], world: ProcessGroup) -> None:
        """Compares all rows of the step."""
        self._contrast.prepare_step(model, batches, world)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The batch's share of the loss of the step that was looked at."""
        return self._contrast.loss_sum(model, batch)[None]

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: those of `retrieval`."""
        return self._contrast.measured()

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Loss, and how soon a row finds its right candidate among all those of as many rows as a step has."""
        return {"loss": losses[0]} | retrieval(statistics)

    @abstractmethod
    def _embed(self, model: Any, batch: Batch) -> Views:
        """The batch's views, from one call of the model."""

    @abstractmethod
    def _contests(self, views: Views, rows: torch.Tensor) -> Sequence[Contest]:
        """Those of the rows with these indices [rows] int64."""


class _Seen(NamedTuple):
    """What the look ahead leaves of a batch."""

    drawn: RandomState
    """What its dropout was drawn from."""
    views: Views | None
    """Its embeddings, if these still know where they come from."""
    losses: torch.Tensor
    places: torch.Tensor
    gradients: Views


def retrieval(statistics: np.ndarray[Any, Any]) -> dict[str, float]:
    """Shares of rows whose right candidate came first, and among the first five, and the mean of one over its place."""
    first, near, reciprocals, rows = statistics.tolist()
    rows = max(rows, 1)
    return {"recall@1": first / rows, "recall@5": near / rows, "mrr": reciprocals / rows}


def _dealt(whole: Views, batches: Sequence[Views]) -> list[Views]:
    """Each batch's part of what was joined out of all of them."""
    parts = (torch.split(view, [len(views[index]) for views in batches]) for index, view in enumerate(whole))
    return list(zip(*parts, strict=True))


def _summed_gradient(view: torch.Tensor, world: ProcessGroup) -> torch.Tensor:
    assert view.grad is not None
    return world.all_reduce_sum(view.grad)


def _places(contest: Contest) -> torch.Tensor:
    """Where the right candidate comes when all are sorted by their scores, from 1; of equal ones the first comes first."""
    scores, right = contest.scores.detach(), contest.right[:, None]
    best = scores.gather(1, right)
    sooner = torch.arange(scores.shape[1], device=scores.device) < right
    return 1 + ((scores > best) | (scores == best) & sooner).sum(1)


def _random_state(device: torch.device) -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _draw_again(state: RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
