"""Scales of inner activations: which layers, and that they are not decayed like matrices."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import tiny, training
from tests.support.methods import apply_method

from finetune_trainer.methods.components.peft_layers import adapted_layers
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.training.engine import parameter_groups


def adapted(model: Any, objective: str = "CausalLM", **settings: Any) -> Any:
    source = {"initialization": "Pretrained", "source": "hf://a/b", "tokenizer": None}
    spec = tiny.spec(model=source, method={"type": "IA3", "ia3": settings}, objective={"type": objective})
    return apply_method(model, spec, training.objective_of(spec))


@pytest.mark.parametrize(
    ("model", "settings", "outputs", "inputs"),
    [
        (tiny.llama, {}, {"k_proj", "v_proj"}, {"down_proj"}),
        (tiny.llama, {"targetModules": ["q_proj"]}, {"q_proj"}, set()),
        (tiny.llama, {"feedforwardModules": ["up_proj"]}, set(), {"up_proj"}),
        (tiny.llama, {"targetModules": ["k_proj"], "feedforwardModules": ["down_proj"]}, {"k_proj"}, {"down_proj"}),
        (tiny.gpt2, {}, {"c_attn"}, {"c_proj"}),
    ],
)
def test_targets(model: Any, settings: dict[str, Any], outputs: set[str], inputs: set[str]) -> None:
    learner = adapted(model(), **settings)
    found = {name.rpartition(".")[2]: layer.is_feedforward for name, layer in adapted_layers(learner).items()}
    assert {name for name, feedforward in found.items() if not feedforward} == outputs
    assert {name for name, feedforward in found.items() if feedforward} == inputs
    assert all(("ia3_l" in name) == parameter.requires_grad for name, parameter in learner.named_parameters())


def test_scales_are_not_decayed() -> None:
    [group] = parameter_groups(adapted(tiny.llama()), 0.1)
    assert group["weight_decay"] == 0


def test_an_unknown_family_must_name_its_layers() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.ia3\.targetModules: peft has no default layers for a resnet"):
        adapted(tiny.resnet(), targetModules=[])


@pytest.mark.parametrize("field", ["targetModules", "feedforwardModules"])
def test_an_unknown_layer_names_the_field_and_what_there_is(field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec\.method\.ia3\.{field}: .*'query'.*q_proj"):
        adapted(tiny.llama(), **{field: ["query"]})
