"""The loss of causal language models, compared with those of torch and transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import tiny
from torch.nn import functional

from finetune_trainer.data.loading.collate import Layout, PackedAs
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.objectives.losses import cross_entropy

OBJECTIVE = CausalLM.from_spec(tiny.spec(), tiny.tokenizer())


@pytest.mark.parametrize("model", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("rows", [1, 5])
def test_equals_the_loss_of_transformers(model: Callable[[], Any], rows: int) -> None:
    learner, batch = model(), tiny.batch(tiny.rows(rows))
    expected = learner(**tiny.model_arguments(batch)).loss
    expected_gradients = torch.autograd.grad(expected, list(learner.parameters()))
    mean = OBJECTIVE.loss.loss_sum(learner, batch)[0] / OBJECTIVE.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(expected.item(), rel=1e-5)
    for got, wanted in zip(torch.autograd.grad(mean, list(learner.parameters())), expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("scores_at_once", [1, 300, 2**24])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3), (torch.float16, 1e-3)])
def test_equals_the_cross_entropy_of_torch(
    monkeypatch: pytest.MonkeyPatch, scores_at_once: int, smoothing: float, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setitem(cross_entropy._SCORES_AT_ONCE, "cpu", scores_at_once)
    torch.manual_seed(0)
    logits = (4 * torch.randn(11, 100)).to(dtype).requires_grad_()
    labels = torch.randint(0, 100, (11,))
    labels[[2, 3, 10]] = tiny.IGNORED
    got = cross_entropy.summed_cross_entropy(logits, labels, smoothing)
    wanted = functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(wanted.item(), rel=1e-6)
    (mine,), (theirs,) = torch.autograd.grad(got / 7, logits), torch.autograd.grad(wanted / 7, logits)
    assert mine.dtype == dtype
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance / 10)


def test_smooths_labels_only_in_training() -> None:
    smoothed = CausalLM.from_spec(tiny.spec(training={"labelSmoothing": 0.2}), tiny.tokenizer())
    learner, batch = tiny.llama(), tiny.batch(tiny.rows(3))
    plain = OBJECTIVE.loss.loss_sum(learner, batch).item()
    assert smoothed.metrics.measure(learner, batch).losses.item() == plain
    logits = learner(**batch.inputs).logits[:, :-1].flatten(0, 1)
    wanted = functional.cross_entropy(logits, batch.targets["labels"][:, 1:].flatten(), reduction="sum", label_smoothing=0.2)
    assert smoothed.loss.loss_sum(learner, batch).item() == pytest.approx(wanted.item(), rel=1e-5) != plain


def test_ignored_rows_may_have_any_value() -> None:
    logits = torch.tensor([[1.0, 2.0], [float("nan"), float("inf")]], requires_grad=True)
    loss = cross_entropy.summed_cross_entropy(logits, torch.tensor([1, tiny.IGNORED]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert logits.grad[1].tolist() == [0, 0]


def test_loss_without_labels_is_zero() -> None:
    batch = tiny.batch(tiny.rows(2) | {"labels": torch.full((2, 16), tiny.IGNORED)})
    assert OBJECTIVE.collator.count_terms(batch) == [0]
    assert OBJECTIVE.loss.loss_sum(tiny.llama(), batch).item() == 0


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 1.0), (2.0, 7.38905609893065), (1000.0, None)])
def test_omits_perplexity_that_overflows(loss: float, expected: float | None) -> None:
    assert OBJECTIVE.metrics.compute([loss], np.zeros(0)).get("perplexity") == expected


@pytest.mark.parametrize("model", [tiny.llama, tiny.gpt2])
def test_packed_documents_have_the_loss_of_padded_ones(model: Callable[[], Any]) -> None:
    documents = [np.arange(1, 12), np.arange(20, 27), np.arange(3, 50, 4), np.arange(40, 42)]
    alone = OBJECTIVE.collator.collate([{TOKENS: tokens} for tokens in documents], [], Layout())
    packed_row = {TOKENS: np.concatenate(documents), LENGTHS: np.array([len(tokens) for tokens in documents])}
    packed = OBJECTIVE.collator.collate([packed_row], [], Layout(PackedAs.POSITIONS))
    learner = model()
    terms = [sum(len(tokens) - 1 for tokens in documents)]
    assert OBJECTIVE.collator.count_terms(packed) == OBJECTIVE.collator.count_terms(alone) == terms
    expected = OBJECTIVE.loss.loss_sum(learner, alone).item()
    assert OBJECTIVE.loss.loss_sum(learner, packed).item() == pytest.approx(expected, rel=1e-5)
