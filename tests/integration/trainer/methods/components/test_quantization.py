"""4-bit layers: they compute what bitsandbytes computes, and replace the linear layers outside the head."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch
from tests.support import tiny

from finetune_trainer.methods.components.heads import head_modules
from finetune_trainer.methods.components.quantization import NF4Linear, quantize_linear_layers
from finetune_trainer.protocol.outcome import ConfigurationError


def test_computes_the_outputs_of_bitsandbytes() -> None:
    torch.manual_seed(0)
    linear, rows = torch.nn.Linear(96, 40), torch.randn(5, 96)
    reference = bitsandbytes.nn.Linear4bit(96, 40, quant_type="nf4", compute_dtype=torch.float32)
    reference.load_state_dict(linear.state_dict())
    reference.to("cpu")
    layer = NF4Linear(linear)
    assert torch.equal(layer(rows), reference(rows))
    torch.testing.assert_close(layer.dequantized()(rows), layer(rows))
    assert 0.01 < (layer(rows) - linear(rows)).std() / linear(rows).std() < 0.2
    assert list(layer.state_dict()) == ["bias"]
    reloaded = NF4Linear(linear)
    reloaded.load_state_dict(layer.state_dict())
    assert torch.equal(reloaded(rows), layer(rows))


def test_evaluation_does_not_change_the_weight() -> None:
    layer, rows = NF4Linear(torch.nn.Linear(64, 64)), torch.randn(2, 64)
    before = layer(rows)
    with torch.no_grad():
        layer.eval()(rows)
    assert torch.equal(layer.train()(rows), before)


def test_quantizes_the_body_but_not_the_head() -> None:
    for model, unquantized in ((tiny.llama(), {"lm_head"}), (tiny.bert(), {"classifier", "bert.pooler.dense"})):
        linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        quantize_linear_layers(model, head_modules(model))
        quantized = {name for name, module in model.named_modules() if isinstance(module, NF4Linear)}
        assert linear - quantized == unquantized


def test_rejects_a_model_without_linear_layers() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.lora\.quantization: this gpt2 has no linear layers"):
        quantize_linear_layers(tiny.gpt2(), ["lm_head"])
