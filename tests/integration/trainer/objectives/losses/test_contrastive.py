"""Contrastive loss: the gradient of the whole step through its batches, and the ranks of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from tests.support import ranks
from tests.support.training import joined
from torch.nn import functional

from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.losses import contrastive
from finetune_trainer.objectives.losses.contrastive import Comparison, ContrastiveLoss, Views
from finetune_trainer.objectives.metrics.retrieval import RetrievalMetrics, retrieval_metrics

Compare = Callable[[Views, torch.Tensor], Sequence[Comparison]]
ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
WIDTH = 8


def encoder(dropout: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(3)
    layers = [torch.nn.Linear(WIDTH, 32), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(32, WIDTH)]
    return torch.nn.Sequential(*layers)


def batch(begin: int, end: int) -> Batch:
    """Rows `begin` to `end` of the step: two views of each, which are somewhat alike."""
    generator = torch.Generator().manual_seed(1)
    rows, noise = torch.randn(100, 1, WIDTH, generator=generator), torch.randn(100, 2, WIDTH, generator=generator)
    return Batch({"views": (rows + 0.7 * noise)[begin:end]})


def embed(model: Any, rows: Batch) -> Views:
    """One call for both views, as an objective makes it."""
    embeddings = functional.normalize(model(rows.inputs["views"].flatten(0, 1)), dim=-1).view(-1, 2, WIDTH)
    return embeddings[:, 0], embeddings[:, 1]


class TwoViews(ContrastiveLoss):
    """Compares the two views of each row, with this way of comparing."""

    def __init__(self, compare_views: Compare) -> None:
        self.compare_views = compare_views

    def embed(self, model: Any, batch: Batch) -> Views:
        return embed(model, batch)

    def compare(self, views: Views, rows: torch.Tensor) -> Sequence[Comparison]:
        return self.compare_views(views, rows)


def pairs(views: Views, rows: torch.Tensor) -> Sequence[Comparison]:
    first, second = views
    return [Comparison(first[rows] @ second.T / 0.1, rows), Comparison(second[rows] @ first.T / 0.1, rows)]


def augmentations(views: Views, rows: torch.Tensor) -> Sequence[Comparison]:
    """SimCLR's (Chen et al. 2020, arXiv:2002.05709): every other view of the step is a candidate, but not the view itself."""
    both = torch.cat(views)
    comparisons = []
    for side in (0, 1):
        itself = functional.one_hot(rows + side * len(views[0]), len(both)).bool()
        scores = (views[side][rows] @ both.T / 0.1).masked_fill(itself, -torch.inf)
        comparisons.append(Comparison(scores, rows + (1 - side) * len(views[0])))
    return comparisons


def nt_xent(views: Views) -> torch.Tensor:
    """SimCLR's loss as its paper writes it, summed."""
    both = torch.cat(views).double()
    similarities = torch.exp(both @ both.T / 0.1)
    others = similarities.sum(1) - similarities.diagonal()
    alike = torch.exp((views[0] * views[1]).sum(1).double() / 0.1)
    return -torch.log(alike.repeat(2) / others).sum()


def directly(compare: Any, parts: list[tuple[int, int]], dropout: float) -> tuple[float, torch.Tensor]:
    """Loss and gradient with all activations of the step kept."""
    model = encoder(dropout)
    torch.manual_seed(7)
    views = tuple(torch.cat(view) for view in zip(*(embed(model, batch(*part)) for part in parts), strict=True))
    if compare is augmentations:
        loss = nt_xent(views)
    else:
        right = torch.arange(len(views[0]))
        scores = views[0] @ views[1].T / 0.1
        loss = functional.cross_entropy(scores, right, reduction="sum") + functional.cross_entropy(
            scores.T, right, reduction="sum"
        )
    loss.backward()
    return loss.item(), gradient_of(model)


def by_batches(compare: Any, parts: list[tuple[int, int]], dropout: float, world: ProcessGroup) -> tuple[float, torch.Tensor]:
    """The same by the look ahead, batch after batch."""
    model, contrastive_loss = encoder(dropout), TwoViews(compare)
    torch.manual_seed(7)
    batches = [batch(*part) for part in parts]
    total = 0.0
    for prepared in contrastive_loss.prepare_step(model, batches, world):
        loss = contrastive_loss.loss_sum(model, prepared)
        loss.backward()
        total += loss.item()
    return total, gradient_of(model)


def gradient_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("compare", [pairs, augmentations])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("parts", [[(0, 12)], [(0, 4), (4, 8), (8, 12)], [(0, 5), (5, 5), (5, 12)]])
def test_batches_have_the_loss_and_gradient_of_the_whole_step(
    compare: Any, dropout: float, parts: list[tuple[int, int]]
) -> None:
    loss, gradient = directly(compare, parts, dropout)
    found, gradient_found = by_batches(compare, parts, dropout, ALONE)
    assert found == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(gradient_found, gradient, rtol=1e-4, atol=1e-5)


def test_chunks_of_scores_give_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = by_batches(pairs, [(0, 5), (5, 12)], 0.3, ALONE)
    monkeypatch.setattr(contrastive, "SCORES_AT_ONCE", 50)
    chunked = by_batches(pairs, [(0, 5), (5, 12)], 0.3, ALONE)
    assert chunked[0] == pytest.approx(whole[0], rel=1e-6)
    torch.testing.assert_close(chunked[1], whole[1], rtol=1e-4, atol=1e-5)


def of_rank(place: ranks.Place, dealt: list[list[tuple[int, int]]]) -> tuple[float, Any]:
    with joined(place) as here:
        loss, gradient = by_batches(pairs, dealt[place.rank], 0.0, here)
    return loss, gradient.numpy()


def test_compares_rows_of_all_ranks() -> None:
    """Also where these are of unequal number, or none."""
    loss, gradient = directly(pairs, [(0, 12)], 0.0)
    dealt = [[(0, 3), (3, 7)], [(7, 12), (12, 12)], [(12, 12), (12, 12)]]
    results = ranks.run(of_rank, 3, dealt)
    assert sum(found for found, _ in results) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(sum(found for _, found in results), gradient, rtol=1e-4, atol=1e-5)


def test_computes_retrieval_metrics_of_scikit_learn() -> None:
    contrastive_loss, retrieval, model = TwoViews(pairs), RetrievalMetrics(), encoder()
    batches = [batch(0, 30), batch(30, 40)]
    with torch.no_grad():
        prepared = contrastive_loss.prepare_step(model, batches, ALONE)
        measured = [retrieval.measure(model, one) for one in prepared]
        first, second = embed(model, batch(0, 40))
        scores = (first @ second.T).numpy()
    found = retrieval_metrics(sum(one.statistics.numpy() for one in measured))
    assert 0.1 < found["recall@1"] < 0.9
    for name, most in (("recall@1", 1), ("recall@5", 5)):
        assert found[name] == pytest.approx(metrics.top_k_accuracy_score(np.arange(40), scores, k=most))
    assert found["mrr"] == pytest.approx(metrics.label_ranking_average_precision_score(np.eye(40), scores))


def test_ranks_equal_scores_by_position() -> None:
    scores, rows = torch.ones(10, 10), torch.arange(10)
    assert contrastive.rank_right_candidates(Comparison(scores, rows)).tolist() == list(range(1, 11))
