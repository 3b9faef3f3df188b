"""A new adapter on a model with frozen adapters of earlier jobs: these do not change, and the export contains all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.support import corpora, tiny, training
from tests.support.learning import LLAMA, learn
from tests.support.methods import apply_method
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune_trainer.config import TrainSpec
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.export import model as export
from finetune_trainer.protocol.outcome import ConfigurationError

SOURCE = {"initialization": "Pretrained", "source": "hf://a/b", "tokenizer": None}
ALONE = ProcessGroup(rank=0, size=1, local_rank=0, processes_per_node=1, device=torch.device("cpu"))


def lora_spec(lora: dict[str, Any], objective: str = "CausalLM", merge: bool = False) -> TrainSpec:
    return tiny.spec(
        model=SOURCE, method={"type": "LoRA", "lora": lora}, objective={"type": objective}, export={"mergeAdapters": merge}
    )


def apply_lora(model: Any, spec: TrainSpec) -> Any:
    return apply_method(model, spec, training.objective_of(spec))


def perturb(model: Any, seed: int) -> Any:
    """Add noise to the trainable weights, as if the model had been trained, and return the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def export_model(model: Any, spec: TrainSpec, folder: Path) -> Path:
    export.save_model(model, training.objective_of(spec), spec.export, spec.model, ALONE, folder)
    return folder


def compute_logits(model: Any, rows: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**rows | {"labels": None}).logits
    return logits


def train_earlier_adapters(
    folder: Path, *settings: dict[str, Any], model: str = "llama", objective: str = "CausalLM"
) -> list[dict[str, str]]:
    """Export one adapter for each of the settings, and return them as `frozenAdapters` of a document."""
    adapters = []
    for number, lora in enumerate(settings):
        spec = lora_spec(lora, objective)
        exported = export_model(perturb(apply_lora(getattr(tiny, model)(), spec), number), spec, folder / f"earlier {number}")
        adapters.append({"source": f"file://{exported}"})
    return adapters


@pytest.mark.parametrize("quantization", ["None", "NF4"])
def test_exports_one_adapter_or_a_merged_model(quantization: str, tmp_path: Path) -> None:
    frozen = train_earlier_adapters(
        tmp_path, {"rank": 3, "targetModules": ["q_proj", "down_proj"]}, {"rank": 2, "rankStabilized": True}
    )
    settings = {"rank": 4, "dropout": 0.1, "frozenAdapters": frozen, "quantization": quantization}
    spec, rows = lora_spec(settings), tiny.rows(3)
    model = apply_lora(tiny.llama(), spec)
    start = compute_logits(model, rows)
    assert {name.split(".")[-2] for name, weight in model.named_parameters() if weight.requires_grad} == {"default"}
    perturb(model, 9)
    after = compute_logits(model, rows)
    assert (after - start).abs().max() > 0.01
    with model.disable_adapter(), torch.no_grad():
        assert torch.equal(compute_logits(model, rows), start)
    assert torch.equal(compute_logits(model, rows), after)

    merged = AutoModelForCausalLM.from_pretrained(export_model(model, lora_spec(settings, merge=True), tmp_path / "merged"))
    torch.testing.assert_close(compute_logits(merged, rows), after, rtol=1e-4, atol=1e-5)
    folder = export_model(model, spec, tmp_path / "adapter")
    assert [file.name for file in folder.iterdir() if file.is_dir()] == []
    if quantization == "None":
        adapter = peft.PeftModel.from_pretrained(tiny.llama(), folder)
        assert adapter.peft_config["default"].r == 9
        torch.testing.assert_close(compute_logits(adapter, rows), after, rtol=1e-4, atol=1e-5)
    assert torch.equal(compute_logits(model, rows), after), "exporting changed the live model"


def test_adds_earlier_adapters_without_their_heads(tmp_path: Path) -> None:
    frozen = train_earlier_adapters(tmp_path, {"rank": 2}, {"rank": 3}, model="bert", objective="SequenceClassification")
    spec = lora_spec({"frozenAdapters": frozen}, "SequenceClassification")
    model = apply_lora(tiny.bert(), spec)
    base = dict(tiny.bert().named_parameters())
    for name, parameter in model.named_parameters():
        if "modules_to_save.default" in name:
            plain = name.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
            assert torch.equal(parameter, base[plain]), "the head is not that of the base model"
    query = model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    deltas = [query.get_delta_weight(name) for name in ("frozen-0", "frozen-1")]
    inputs = torch.randn(2, 32)
    expected = torch.nn.functional.linear(inputs, query.base_layer.weight + sum(deltas), query.base_layer.bias)
    torch.testing.assert_close(query.eval()(inputs), expected)
    folder = export_model(perturb(model, 5), spec, tmp_path / "adapter")
    adapter = peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_config(tiny.bert().config), folder)
    assert "classifier" in adapter.peft_config["default"].modules_to_save


def test_rejects_unsuitable_adapters(tmp_path: Path) -> None:
    [dora] = train_earlier_adapters(tmp_path / "dora", {"dora": True})
    [other] = train_earlier_adapters(tmp_path / "other", {}, model="gpt2")
    cases = {"no readable adapter": {"source": f"file://{tmp_path}"}, "only plain LoRA adapters": dora, "another model": other}
    for message, adapter in cases.items():
        with pytest.raises(ConfigurationError, match=rf"^spec\.method\.lora\.frozenAdapters\[0\]\.source: .*{message}"):
            apply_lora(tiny.llama(), lora_spec({"frozenAdapters": [adapter]}))


def test_trains_a_second_task_with_the_first_adapter_frozen(tmp_path: Path) -> None:
    first, second = ([{"text": text} for _, text in corpora.functions(package)[:80]] for package in ("asyncio", "xml"))
    base = learn(tmp_path / "base", first[:40] + second[:40], model={"config": LLAMA}, training={"maxSteps": 60})
    common: dict[str, Any] = {"model": {"source": f"file://{base.model}"}, "export": {"mergeAdapters": False}}
    first_task = learn(tmp_path / "one", first, **common, method={"type": "LoRA"}, training={"maxSteps": 40})
    method = {"type": "LoRA", "lora": {"rank": 4, "frozenAdapters": [{"source": f"file://{first_task.model}"}]}}
    second_task = learn(tmp_path / "two", second, **common, method=method, training={"maxSteps": 40})
    assert second_task.after["loss"] < second_task.before["loss"] - 0.1
    weights, first_weights = (load_file(task.model / "adapter_model.safetensors") for task in (second_task, first_task))
    for name, weight in first_weights.items():
        if "lora_B" in name:  # the first adapter is part of the second export, unchanged
            assert torch.equal(weights[name][:, 4:], weight), name
