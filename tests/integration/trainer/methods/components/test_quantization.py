"""Frozen weights in 4 bits: bitsandbytes' own numbers, what stays as it is, and the layers that there must be."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch
from tests.support import tiny

from finetune_trainer.methods.components.heads import head_modules
from finetune_trainer.methods.components.quantization import NF4Linear, quantize_linear_layers
from finetune_trainer.protocol.outcome import ConfigurationError


def test_a_layer_is_that_of_bitsandbytes() -> None:
    torch.manual_seed(0)
    linear, rows = torch.nn.Linear(96, 40), torch.randn(5, 96)
    theirs = bitsandbytes.nn.Linear4bit(96, 40, quant_type="nf4", compute_dtype=torch.float32)
    theirs.load_state_dict(linear.state_dict())
    theirs.to("cpu")
    ours = NF4Linear(linear)
    assert torch.equal(ours(rows), theirs(rows))
    torch.testing.assert_close(ours.dequantized()(rows), ours(rows))
    assert 0.01 < (ours(rows) - linear(rows)).std() / linear(rows).std() < 0.2
    assert list(ours.state_dict()) == ["bias"]
    again = NF4Linear(linear)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(rows), ours(rows))


def test_evaluating_leaves_the_weight_alone() -> None:
    layer, rows = NF4Linear(torch.nn.Linear(64, 64)), torch.randn(2, 64)
    before = layer(rows)
    with torch.no_grad():
        layer.eval()(rows)
    assert torch.equal(layer.train()(rows), before)


def test_the_body_is_quantised_and_the_head_is_not() -> None:
    for model, kept in ((tiny.llama(), {"lm_head"}), (tiny.bert(), {"classifier", "bert.pooler.dense"})):
        linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        quantize_linear_layers(model, head_modules(model))
        quantised = {name for name, module in model.named_modules() if isinstance(module, NF4Linear)}
        assert linear - quantised == kept


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.lora\.quantization: this gpt2 has no linear layers"):
        quantize_linear_layers(tiny.gpt2(), ["lm_head"])
