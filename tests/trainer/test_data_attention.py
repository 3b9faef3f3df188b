"""A packed row must teach exactly what its documents would teach alone, whatever the family and the attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finetune_trainer.data.attention import examine
from finetune_trainer.data.collate import IGNORED, Batch, PackedAs, collate, learnt, tokens
from finetune_trainer.data.rows import Row
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.outcome import ConfigurationError

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
    "bloom": {},
    "mamba": {},
    "bert": {},
}
POSITIONS, MASK = PackedAs.POSITIONS, PackedAs.MASK


def model_of(family: str, attention: str = "eager", **changes: Any) -> PreTrainedModel:
    settings = AutoConfig.for_model(family, **(SIZES | FAMILIES[family] | changes))
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(settings, attn_implementation=attention)
    return model


def row_of(*lengths: int) -> Row:
    generator = np.random.default_rng(sum(lengths))
    return Row(generator.integers(2, 64, sum(lengths), dtype=np.int32), np.array(lengths, np.int32))


def documents(rows: list[Row]) -> list[Row]:
    pieces = [piece for row in rows for piece in np.split(row.tokens, np.cumsum(row.lengths)[:-1])]
    return [Row(piece, np.array([len(piece)], np.int32)) for piece in pieces]


def loss(model: PreTrainedModel, batch: Batch) -> tuple[float, int, torch.Tensor]:
    """Sum of the loss, number of its terms, and the gradient of all weights."""
    objective = CausalLM()
    model.zero_grad()
    total = objective.loss_sum(model, batch)
    total.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    return float(total.detach()), objective.count(batch), gradient


ROWS = [row_of(5, 7, 2), row_of(16), row_of(3, 3, 3, 3)]
KINDS = [
    ("llama", "eager", POSITIONS), ("llama", "sdpa", POSITIONS), ("gpt2", "eager", POSITIONS), ("gpt2", "sdpa", POSITIONS),
    ("mistral", "eager", POSITIONS), ("mistral", "sdpa", POSITIONS), ("qwen3", "sdpa", POSITIONS), ("opt", "eager", MASK),
    ("opt", "sdpa", MASK), ("falcon", "eager", MASK), ("falcon", "sdpa", MASK),
]  # fmt: skip


@pytest.mark.parametrize(("family", "attention", "way"), KINDS)
def test_packed_rows_teach_what_their_documents_do(family: str, attention: str, way: PackedAs) -> None:
    model = model_of(family, attention).train()
    assert examine(model, packing=True) is way
    assert model.training
    alone, terms, gradient = 0.0, 0, torch.zeros(())
    for document in documents(ROWS):
        more, count, its_gradient = loss(model, collate([document], 1))
        alone, terms, gradient = alone + more, terms + count, gradient + its_gradient
    together, packed_terms, packed_gradient = loss(model, collate(ROWS, 1, packed_as=way))
    assert packed_terms == terms == sum(len(row.tokens) - len(row.lengths) for row in ROWS)
    assert together / terms == pytest.approx(alone / terms, abs=1e-5)
    torch.testing.assert_close(packed_gradient, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_rows_laid_end_to_end_are_the_same_rows(family: str) -> None:
    """What flash attention is given; eager attention computes the same from it."""
    model = model_of(family)
    flat = collate(ROWS, 1, packed_as=PackedAs.FLAT)
    assert flat["input_ids"].shape == (1, 48)
    assert "attention_mask" not in flat
    assert loss(model, flat)[0] == pytest.approx(loss(model, collate(ROWS, 1, packed_as=POSITIONS))[0], abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "falcon", "bloom", "mamba"])
def test_padding_teaches_nothing(family: str) -> None:
    model = model_of(family)
    assert examine(model, packing=False) is None
    singles = documents(ROWS)
    apart = sum(loss(model, collate([document], 1))[0] for document in singles)
    assert loss(model, collate(singles, 1))[0] == pytest.approx(apart, abs=1e-3)


@pytest.mark.parametrize("family", ["bloom", "mamba"])
def test_families_that_cannot_be_packed_are_refused(family: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec.data.packing: .* in a {family}: set data.packing: false"):
        examine(model_of(family), packing=True)


def test_a_model_that_sees_the_future_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model: this bert sees .* set model.config.is_decoder: true"):
        examine(model_of("bert"), packing=False)
    assert examine(model_of("bert", is_decoder=True), packing=False) is None


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model.config: a llama of .* cannot compute \(.*\): correct"):
        examine(model_of("llama", num_key_value_heads=3), packing=True)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_half_precision_is_told_apart_too(family: str) -> None:
    model = model_of(family).to(torch.bfloat16)
    assert examine(model, packing=True) is (MASK if family == "opt" else POSITIONS)


def test_the_tensors_of_a_packed_batch() -> None:
    batch = collate([Row(np.arange(10, 15, dtype=np.int32), np.array([3, 2]))], 1, packed_as=POSITIONS)
    assert {name: tensor[0].tolist() for name, tensor in batch.items()} == {
        "input_ids": [10, 11, 12, 13, 14, 1, 1, 1],
        "labels": [IGNORED, 11, 12, IGNORED, 14, IGNORED, IGNORED, IGNORED],
        "position_ids": [0, 1, 2, 0, 1, 0, 1, 2],
    }
    assert (tokens(batch), learnt(batch)) == (5, 3)


@pytest.mark.parametrize("way", [None, *PackedAs])
def test_a_rank_without_rows_computes_and_learns_nothing(way: PackedAs | None) -> None:
    batch = collate([], 1, packed_as=way)
    total, count, gradient = loss(model_of("llama"), batch)
    assert (total, count, tokens(batch), learnt(batch)) == (0.0, 0, 0, 0)
    assert gradient.abs().max() == 0


def test_the_width_can_be_fixed() -> None:
    assert collate(ROWS, 1, 64)["input_ids"].shape == (3, 64)
    assert collate(ROWS, 1)["input_ids"].shape == (3, 16)
