"""LoRA: which layers get adapters, which other weights are trained, and the errors for unsuitable models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support import tiny, training
from tests.support.methods import apply_method
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from finetune_trainer.methods.components.heads import head_modules
from finetune_trainer.methods.components.peft_layers import adapted_layers
from finetune_trainer.protocol.outcome import ConfigurationError

LLAMA_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
BERT_LINEAR = {"query", "key", "value", "dense"}


def add_lora(model: Any, seed: int = 1, objective: str = "CausalLM", **settings: Any) -> Any:
    source = {"initialization": "Pretrained", "source": "hf://a/b", "tokenizer": None}
    method = {"type": "LoRA", "lora": settings}
    spec = tiny.spec(model=source, method=method, training={"seed": seed}, objective={"type": objective})
    return apply_method(model, spec, training.objective_of(spec))


@pytest.mark.parametrize(
    ("model", "targets", "expected"),
    [
        (tiny.llama, [], LLAMA_LINEAR),
        (tiny.llama, ["q_proj"], {"q_proj"}),
        (tiny.llama, ["self_attn.v_proj"], {"v_proj"}),
        (tiny.gpt2, [], {"c_attn", "c_proj", "c_fc"}),
    ],
)
def test_adds_adapters_to_the_target_modules(model: Any, targets: list[str], expected: set[str]) -> None:
    adapted = add_lora(model(), targetModules=targets)
    assert {name.rpartition(".")[2] for name in adapted_layers(adapted)} == expected
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in adapted.named_parameters())


@pytest.mark.parametrize(("targets", "expected"), [([], BERT_LINEAR), (["query"], {"query"})])
def test_trains_a_new_head_in_full(targets: list[str], expected: set[str]) -> None:
    adapted = add_lora(tiny.bert(), objective="SequenceClassification", targetModules=targets)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    fully_trained = {name for name in trained if "lora_" not in name}
    replaced = "base_model.model.{}.modules_to_save.default.{}"
    assert fully_trained == {
        replaced.format("classifier", "weight"), replaced.format("classifier", "bias"),
        replaced.format("bert.pooler", "dense.weight"), replaced.format("bert.pooler", "dense.bias"),
    }  # fmt: skip
    layers = adapted_layers(adapted)
    assert {name.rpartition(".")[2] for name in layers} == expected
    assert not any("pooler" in name or "classifier" in name for name in layers)


@pytest.mark.parametrize(
    ("kind", "auto", "expected"),
    [
        ("roberta", AutoModelForSequenceClassification, ["classifier"]),
        ("distilbert", AutoModelForSequenceClassification, ["pre_classifier", "classifier"]),
        ("bart", AutoModelForSequenceClassification, ["classification_head"]),
        ("gpt2", AutoModelForSequenceClassification, ["score"]),
        ("bert", AutoModelForTokenClassification, ["classifier"]),
        ("electra", AutoModelForQuestionAnswering, ["qa_outputs"]),
        ("bert", AutoModel, []),
    ],
)
def test_finds_the_head_of_each_family(kind: str, auto: Any, expected: list[str]) -> None:
    with torch.device("meta"):
        model = auto.from_config(AutoConfig.for_model(kind))
    assert head_modules(model) == expected


def test_full_returns_the_model_itself() -> None:
    model, spec = tiny.llama(), tiny.spec()
    assert apply_method(model, spec, training.objective_of(spec)) is model


def test_initial_weights_depend_on_the_seed_alone() -> None:
    def initial_weights(seed: int, drawn_before: int) -> dict[str, torch.Tensor]:
        model = tiny.llama()
        torch.rand(drawn_before)
        return {n: p for n, p in add_lora(model, seed).named_parameters() if "lora_A" in n}

    first, same, other = initial_weights(1, 0), initial_weights(1, 5), initial_weights(2, 0)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("target", "suggestion"), [("query", "q_proj"), ("proj", "down_proj"), ("model.layers", "k_proj")])
def test_rejects_an_unknown_target_module(target: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec\.method\.lora\.targetModules: .*{target}.*{suggestion}"):
        add_lora(tiny.llama(), targetModules=["q_proj", target])


def test_rejects_a_model_without_linear_layers() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.type: the model has no linear layers"):
        add_lora(tiny.resnet(), objective="SequenceClassification")
