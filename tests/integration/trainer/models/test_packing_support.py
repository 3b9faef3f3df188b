"""Packed rows have the same loss and gradient as their documents alone, for each family and attention implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support import tiny
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, PackedAs, collate
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, document_lengths
from finetune_trainer.models import packing_support
from finetune_trainer.models.packing_support import detect_packing_support
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.protocol.outcome import ConfigurationError

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 1,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 64},
    "gpt2": {"n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "mistral": {"intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": 4},
    "qwen3": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64, "dropout": 0.0},
    "falcon": {},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "bloom": {},
    "mamba": {},
    "bert": {},
}
OBJECTIVE = CausalLM.from_spec(tiny.spec(), tiny.tokenizer())
POSITIONS, MASK = PackedAs.POSITIONS, PackedAs.MASK


def create_model(family: str, attention: str = "eager", **changes: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(family, **(SIZES | FAMILIES[family] | changes))
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model


def packed_row(*sizes: int) -> Sample:
    generator = np.random.default_rng(sum(sizes))
    tokens = generator.integers(2, 64, sum(sizes), dtype=np.int32)
    return {TOKENS: tokens, LENGTHS: np.array(sizes, np.int32)}


def split_documents(rows: list[Sample]) -> list[Sample]:
    return [{TOKENS: piece} for row in rows for piece in np.split(row[TOKENS], np.cumsum(document_lengths(row))[:-1])]


def batch_of(rows: list[Sample], form: PackedAs | None = None) -> Batch:
    return OBJECTIVE.collator.collate(rows, [], Layout(form))


def compute_loss(model: PreTrainedModel, batch: Batch) -> tuple[float, int, torch.Tensor]:
    """The sum of the loss, the number of its terms, and the gradient of all weights."""
    model.zero_grad()
    [total] = OBJECTIVE.loss.loss_sum(model, batch)
    total.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    return float(total.detach()), OBJECTIVE.collator.count_terms(batch)[0], gradient


ROWS = [packed_row(5, 7, 2), packed_row(16), packed_row(3, 3, 3, 3)]
KINDS = [
    ("llama", "eager", POSITIONS), ("llama", "sdpa", POSITIONS), ("gpt2", "eager", POSITIONS), ("gpt2", "sdpa", POSITIONS),
    ("mistral", "eager", POSITIONS), ("mistral", "sdpa", POSITIONS), ("qwen3", "sdpa", POSITIONS), ("opt", "eager", MASK),
    ("opt", "sdpa", MASK), ("falcon", "eager", MASK), ("falcon", "sdpa", MASK),
]  # fmt: skip


@pytest.mark.parametrize(("family", "attention", "form"), KINDS)
def test_packed_rows_train_as_their_documents_do(family: str, attention: str, form: PackedAs) -> None:
    model = create_model(family, attention).train()
    assert detect_packing_support(model, packing=True) is form
    assert model.training
    total, terms, gradient = 0.0, 0, torch.zeros(())
    for document in split_documents(ROWS):
        document_total, count, document_gradient = compute_loss(model, batch_of([document]))
        total, terms, gradient = total + document_total, terms + count, gradient + document_gradient
    packed_total, packed_terms, packed_gradient = compute_loss(model, batch_of(ROWS, form))
    assert packed_terms == terms == sum(len(row[TOKENS]) - len(document_lengths(row)) for row in ROWS)
    assert packed_total / terms == pytest.approx(total / terms, abs=1e-5)
    torch.testing.assert_close(packed_gradient, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_concatenated_rows_have_the_same_loss(family: str) -> None:
    """This is the form for flash attention; eager attention computes the same loss from it."""
    model = create_model(family)
    flat = batch_of(ROWS, PackedAs.FLAT)
    assert flat.inputs["input_ids"].shape == (1, 48)
    assert "attention_mask" not in flat.inputs
    assert compute_loss(model, flat)[0] == pytest.approx(compute_loss(model, batch_of(ROWS, POSITIONS))[0], abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "falcon", "bloom", "mamba"])
def test_padding_does_not_change_the_loss(family: str) -> None:
    model = create_model(family)
    assert detect_packing_support(model, packing=False) is None
    singles = split_documents(ROWS)
    total = sum(compute_loss(model, batch_of([document]))[0] for document in singles)
    assert compute_loss(model, batch_of(singles))[0] == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("family", ["bloom", "mamba"])
def test_rejects_packing_for_families_without_support(family: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec.data.packing: a {family} attends across .*: set data.packing: false"):
        detect_packing_support(create_model(family), packing=True)


def test_rejects_a_model_that_attends_to_the_future() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model: this bert attends to .* set model.config.is_decoder: true"):
        detect_packing_support(create_model("bert"), packing=False)
    assert detect_packing_support(create_model("bert", is_decoder=True), packing=False) is None


def test_rejects_inconsistent_sizes() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model.config: a llama with .* cannot compute \(.*\): correct"):
        detect_packing_support(create_model("llama", num_key_value_heads=3), packing=True)


HALF_PRECISION = [("llama", POSITIONS), ("gpt2", POSITIONS), ("opt", MASK), ("falcon", MASK), ("mpt", MASK)]


@pytest.mark.parametrize(("family", "form"), HALF_PRECISION)
def test_detects_packing_support_in_half_precision(family: str, form: PackedAs) -> None:
    assert detect_packing_support(create_model(family).to(torch.bfloat16), packing=True) is form


@pytest.mark.parametrize("family", ["bloom", "mamba"])
@pytest.mark.parametrize("has_small_model", [True, False])
def test_half_precision_hides_no_leak(family: str, has_small_model: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_small_model:
        monkeypatch.setattr(packing_support, "create_small_model", lambda *_: None)
    with pytest.raises(ConfigurationError, match=rf"^spec.data.packing: a {family} attends across"):
        detect_packing_support(create_model(family).to(torch.bfloat16), packing=True)


def test_half_precision_hides_no_attention_to_the_future() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model: this bert attends to"):
        detect_packing_support(create_model("bert").to(torch.bfloat16), packing=False)


def test_collates_a_packed_batch() -> None:
    batch = batch_of([{TOKENS: np.arange(10, 15, dtype=np.int32), LENGTHS: np.array([3, 2])}], POSITIONS)
    assert {name: tensor[0].tolist() for name, tensor in (batch.inputs | batch.targets).items()} == {
        "input_ids": [10, 11, 12, 13, 14, 0, 0, 0],
        "labels": [IGNORE_INDEX, 11, 12, IGNORE_INDEX, 14, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX],
        "position_ids": [0, 1, 2, 0, 1, 0, 1, 2],
    }


@pytest.mark.parametrize("form", [None, *PackedAs])
def test_a_rank_without_rows_has_zero_loss_and_gradient(form: PackedAs | None) -> None:
    batch = batch_of([], form)
    total, count, gradient = compute_loss(create_model("llama"), batch)
    assert (total, count) == (0.0, 0)
    assert gradient.abs().max() == 0


def test_pads_rows_to_the_longest() -> None:
    assert collate(ROWS, 0, Layout()).inputs["input_ids"].shape == (3, 16)
