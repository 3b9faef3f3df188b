"""IA3: which layers get scales, and that the scales have no weight decay."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import tiny, training
from tests.support.methods import apply_method

from finetune_trainer.methods.components.peft_layers import adapted_layers
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.training.engine import parameter_groups


def add_ia3(model: Any, objective: str = "CausalLM", **settings: Any) -> Any:
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
def test_scales_the_target_layers(model: Any, settings: dict[str, Any], outputs: set[str], inputs: set[str]) -> None:
    adapted = add_ia3(model(), **settings)
    is_input_scaled = {name.rpartition(".")[2]: layer.is_feedforward for name, layer in adapted_layers(adapted).items()}
    assert {name for name, feedforward in is_input_scaled.items() if not feedforward} == outputs
    assert {name for name, feedforward in is_input_scaled.items() if feedforward} == inputs
    assert all(("ia3_l" in name) == parameter.requires_grad for name, parameter in adapted.named_parameters())


def test_scales_have_no_weight_decay() -> None:
    [group] = parameter_groups(add_ia3(tiny.llama()), 0.1)
    assert group["weight_decay"] == 0


def test_requires_target_modules_for_an_unknown_family() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.ia3\.targetModules: peft has no default layers for a resnet"):
        add_ia3(tiny.resnet(), targetModules=[])


@pytest.mark.parametrize("field", ["targetModules", "feedforwardModules"])
def test_rejects_an_unknown_layer(field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^spec\.method\.ia3\.{field}: .*'query'.*q_proj"):
        add_ia3(tiny.llama(), **{field: ["query"]})
