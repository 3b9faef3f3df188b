"""Layer depths of model families that name and nest their layers differently."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support import tiny, training
from tests.support.methods import apply_method
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSeq2SeqLM

from finetune_trainer.methods.components.layer_depth import measure_layer_depths
from finetune_trainer.objectives.multi_task import SharedEncoder
from finetune_trainer.protocol.outcome import ConfigurationError


def t5() -> Any:
    config = AutoConfig.for_model("t5", d_model=16, d_ff=32, d_kv=8, num_heads=2, num_layers=2, vocab_size=32)
    return AutoModelForSeq2SeqLM.from_config(config)


def bart() -> Any:
    config = AutoConfig.for_model(
        "bart", d_model=16, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=32,
        encoder_attention_heads=2, decoder_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2,
    )  # fmt: skip
    return AutoModelForSeq2SeqLM.from_config(config)


def vit() -> Any:
    config = AutoConfig.for_model(
        "vit", hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    return AutoModelForImageClassification.from_config(config)


def bert_with_lora() -> Any:
    source = {"initialization": "Pretrained", "source": "hf://a/b", "tokenizer": None}
    spec = tiny.spec(model=source, method={"type": "LoRA"}, objective={"type": "SequenceClassification"})
    return apply_method(tiny.bert(), spec, training.objective_of(spec))


@pytest.mark.parametrize(
    ("create_model", "layer_count", "expected"),
    [
        (tiny.llama, 2, {"embed_tokens": 0, "layers.0.": 1, "layers.1.": 2, "model.norm": 3, "lm_head": 3}),
        (tiny.gpt2, 2, {"wte": 0, "wpe": 0, "h.0.": 1, "h.1.": 2, "ln_f": 3}),
        (tiny.bert, 2, {"embeddings": 0, "layer.0.": 1, "layer.1.": 2, "pooler": 3, "classifier": 3}),
        (bert_with_lora, 2, {"embeddings": 0, "layer.0.": 1, "layer.1.": 2, "pooler": 3, "classifier": 3}),
        (t5, 4, {"shared": 0, "encoder.block.0.": 1, "encoder.block.1.": 2, "decoder.block.0.": 3, "decoder.block.1.": 4}),
        (bart, 3, {"shared": 0, "encoder.layers.0.": 1, "decoder.layers.0.": 2, "decoder.layers.1.": 3}),
        (vit, 2, {"embeddings": 0, "vit.layernorm": 3, "classifier": 3}),
        (tiny.resnet, 2, {"embedder": 0, "stages.0.": 1, "stages.1.": 2, "classifier": 3}),
    ],
)
def test_measures_depths_of_each_family(create_model: Any, layer_count: int, expected: dict[str, int]) -> None:
    model = create_model()
    depths = measure_layer_depths(model, "spec")
    assert (depths.layer_count, depths.head) == (layer_count, layer_count + 1)
    assert set(depths.by_parameter) == set(model.parameters())
    for part, depth in expected.items():
        depths_of_part = {depths.by_parameter[parameter] for name, parameter in model.named_parameters() if part in f"{name}."}
        assert depths_of_part == {depth}, part


def test_rejects_a_model_without_layers() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.field: Linear has no stack of layers"):
        measure_layer_depths(torch.nn.Linear(2, 2), "spec.field")


def test_counts_shared_layers_once() -> None:
    first, second = tiny.bert(), tiny.bert()
    shared = SharedEncoder({"first": first, "second": second})
    depths = measure_layer_depths(shared, "spec")
    assert depths.layer_count == 2
    assert depths.by_parameter[first.classifier.weight] == depths.by_parameter[second.classifier.weight] == 3
    assert set(depths.by_parameter) == set(shared.parameters())
