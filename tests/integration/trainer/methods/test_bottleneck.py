"""Bottleneck adapters: the model starts unchanged, only the adapters are trained, and the export is a plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import tiny, training
from tests.support.methods import apply_method
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from finetune_trainer.methods.components.parallel_adapter import ParallelAdapterLinear, merge_parallel_adapters
from finetune_trainer.protocol.outcome import ConfigurationError

SIZE = 5
SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def tiny_model(family: str) -> Any:
    torch.manual_seed(0)
    match family:
        case "t5":
            config = AutoConfig.for_model("t5", vocab_size=64, d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4)
            return AutoModelForSeq2SeqLM.from_config(config)
        case "bart":
            config = AutoConfig.for_model(
                "bart", vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=40, decoder_ffn_dim=48,
                encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=32,
            )  # fmt: skip
            return AutoModelForSeq2SeqLM.from_config(config)
        case "vit":
            config = AutoConfig.for_model("vit", image_size=8, patch_size=4, num_labels=3, **SMALL)
            return AutoModelForImageClassification.from_config(config)
    return AutoModelForMaskedLM.from_config(AutoConfig.for_model(family, **SMALL))


FAMILIES = {name: getattr(tiny, name) for name in ("llama", "gpt2", "bert")} | {
    family: lambda family=family: tiny_model(family) for family in ("roberta", "distilbert", "t5", "bart", "vit")
}


def add_bottleneck(model: Any, objective: str = "CausalLM") -> Any:
    source = {"initialization": "Pretrained", "source": "hf://a/b", "tokenizer": None}
    spec = tiny.spec(model=source, method={"type": "Bottleneck", "bottleneck": {"size": SIZE}}, objective={"type": objective})
    return apply_method(model, spec, training.objective_of(spec))


def compute_logits(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        inputs = {"pixel_values": torch.rand(2, 3, 8, 8, generator=generator)}
    else:
        inputs = {"input_ids": torch.randint(3, 64, (2, 7), generator=generator)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**inputs).logits
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_exports_a_plain_model_of_each_family(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family]()
    start = compute_logits(model)
    adapted = add_bottleneck(model)
    torch.testing.assert_close(compute_logits(adapted), start)
    layers = [module for module in adapted.modules() if isinstance(module, ParallelAdapterLinear)]
    for layer in layers:
        nn.init.normal_(layer.added.weight, std=0.3)
    after = compute_logits(adapted)
    assert (after - start).abs().max() > 1e-3
    with adapted.disable_adapter():
        torch.testing.assert_close(compute_logits(adapted), start)
    adapted.save_pretrained(tmp_path, state_dict=merge_parallel_adapters(adapted, adapted.state_dict()))
    loaded = type(model).from_pretrained(tmp_path)
    assert not any(isinstance(module, ParallelAdapterLinear) for module in loaded.modules())
    assert loaded.num_parameters() == adapted.num_parameters()
    torch.testing.assert_close(compute_logits(loaded), after, rtol=1e-5, atol=1e-5)


def test_trains_only_adapters_and_a_new_head() -> None:
    trained = {name for name, weight in add_bottleneck(tiny.llama()).named_parameters() if weight.requires_grad}
    assert all(".added." in name for name in trained)
    assert len(trained) == 2 * 3  # gate, up and down projection of each layer
    classifier = add_bottleneck(tiny.bert(), "SequenceClassification")
    trained = {name for name, weight in classifier.named_parameters() if weight.requires_grad}
    assert {name.split(".")[0] for name in trained if ".added." not in name} == {"bert", "classifier"}
    assert {name for name in trained if name.startswith("bert.") and ".added." not in name} == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias",
    }  # fmt: skip


def mixture_of_experts() -> Any:
    return MixtralForCausalLM(MixtralConfig(num_local_experts=2, num_key_value_heads=2, **SMALL))


def fused_projections() -> Any:
    return Phi3ForCausalLM(Phi3Config(num_key_value_heads=2, **SMALL))


@pytest.mark.parametrize("model", [tiny.resnet, mixture_of_experts, fused_projections])
def test_rejects_a_family_with_other_layers(model: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.type: this \w+ has no feed-forward layers that"):
        add_bottleneck(model())
