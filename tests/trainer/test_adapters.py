"""Low-rank adapters: where they go, and what is said when they cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.trainer import tiny

from finetune_trainer import adapters
from finetune_trainer.config import Method
from finetune_trainer.outcome import ConfigurationError

LLAMA_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def method(**settings: Any) -> Method:
    return Method.model_validate({"type": "LoRA", "lora": settings})


@pytest.mark.parametrize(
    ("model", "targets", "adapted"),
    [
        (tiny.llama, [], LLAMA_LINEAR),
        (tiny.llama, ["q_proj"], {"q_proj"}),
        (tiny.llama, ["self_attn.v_proj"], {"v_proj"}),
        (tiny.gpt2, [], {"c_attn", "c_proj", "c_fc"}),
    ],
)
def test_targets(model: Any, targets: list[str], adapted: set[str]) -> None:
    learner = adapters.apply(model(), method(targetModules=targets), seed=1)
    assert {name.rpartition(".")[2] for name in adapters.lora_layers(learner)} == adapted
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in learner.named_parameters())


def test_full_is_the_model_itself() -> None:
    model = tiny.llama()
    assert adapters.apply(model, Method(), seed=1) is model


def test_the_seed_decides_the_start() -> None:
    def start(seed: int, drawn_before: int) -> dict[str, torch.Tensor]:
        model = tiny.llama()
        torch.rand(drawn_before)
        return {n: p for n, p in adapters.apply(model, method(), seed).named_parameters() if "lora_A" in n}

    first, same, other = start(1, 0), start(1, 5), start(2, 0)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("target", "offered"), [("query", "q_proj"), ("proj", "down_proj"), ("model.layers", "k_proj")])
def test_an_unknown_target_names_the_field_and_what_there_is(target: str, offered: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec\.method\.lora\.targetModules: .*{target}.*{offered}"):
        adapters.apply(tiny.llama(), method(targetModules=["q_proj", target]), seed=1)
