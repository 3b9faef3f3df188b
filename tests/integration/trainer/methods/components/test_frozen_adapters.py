"""Adapters beside earlier ones: these stay as they are, and the export has all of them."""

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


def document(lora: dict[str, Any], objective: str = "CausalLM", merge: bool = False) -> TrainSpec:
    return tiny.spec(
        model=SOURCE, method={"type": "LoRA", "lora": lora}, objective={"type": objective}, export={"mergeAdapters": merge}
    )


def learner(model: Any, spec: TrainSpec) -> Any:
    return apply_method(model, spec, training.objective_of(spec))


def moved(model: Any, seed: int) -> Any:
    """The model as if it had learnt: what is trained has other values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def store(model: Any, spec: TrainSpec, folder: Path) -> Path:
    export.save_model(model, training.objective_of(spec), spec.export, spec.model, ALONE, folder, lambda: None)
    return folder


def logits(model: Any, rows: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**rows | {"labels": None}).logits
    return found


def earlier(folder: Path, *settings: dict[str, Any], model: str = "llama", objective: str = "CausalLM") -> list[dict[str, str]]:
    """Adapters of as many earlier jobs, each trained for itself."""
    found = []
    for number, lora in enumerate(settings):
        spec = document(lora, objective)
        where = store(moved(learner(getattr(tiny, model)(), spec), number), spec, folder / f"earlier {number}")
        found.append({"source": f"file://{where}"})
    return found


@pytest.mark.parametrize("quantization", ["None", "NF4"])
def test_the_export_is_one_adapter_or_a_model_with_all(quantization: str, tmp_path: Path) -> None:
    before = earlier(tmp_path, {"rank": 3, "targetModules": ["q_proj", "down_proj"]}, {"rank": 2, "rankStabilized": True})
    settings = {"rank": 4, "dropout": 0.1, "frozenAdapters": before, "quantization": quantization}
    spec, rows = document(settings), tiny.rows(3)
    model = learner(tiny.llama(), spec)
    start = logits(model, rows)
    assert {name.split(".")[-2] for name, one in model.named_parameters() if one.requires_grad} == {"default"}
    moved(model, 9)
    after = logits(model, rows)
    assert (after - start).abs().max() > 0.01
    with model.disable_adapter(), torch.no_grad():
        assert torch.equal(logits(model, rows), start)
    assert torch.equal(logits(model, rows), after)

    merged = AutoModelForCausalLM.from_pretrained(store(model, document(settings, merge=True), tmp_path / "merged"))
    torch.testing.assert_close(logits(merged, rows), after, rtol=1e-4, atol=1e-5)
    folder = store(model, spec, tmp_path / "alone")
    assert [file.name for file in folder.iterdir() if file.is_dir()] == []
    if quantization == "None":
        alone = peft.PeftModel.from_pretrained(tiny.llama(), folder)
        assert alone.peft_config["default"].r == 9
        torch.testing.assert_close(logits(alone, rows), after, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(model, rows), after), "exporting changed the live model"


def test_earlier_adapters_add_up_and_bring_no_head(tmp_path: Path) -> None:
    before = earlier(tmp_path, {"rank": 2}, {"rank": 3}, model="bert", objective="SequenceClassification")
    spec = document({"frozenAdapters": before}, "SequenceClassification")
    model = learner(tiny.bert(), spec)
    base = dict(tiny.bert().named_parameters())
    for name, parameter in model.named_parameters():
        if "modules_to_save.default" in name:
            plain = name.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
            assert torch.equal(parameter, base[plain]), "the new task has the base's own head"
    query = model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    deltas = [query.get_delta_weight(name) for name in ("frozen-0", "frozen-1")]
    inputs = torch.randn(2, 32)
    expected = torch.nn.functional.linear(inputs, query.base_layer.weight + sum(deltas), query.base_layer.bias)
    torch.testing.assert_close(query.eval()(inputs), expected)
    folder = store(moved(model, 5), spec, tmp_path / "alone")
    alone = peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_config(tiny.bert().config), folder)
    assert "classifier" in alone.peft_config["default"].modules_to_save


def test_what_cannot_be_put_beside_is_refused(tmp_path: Path) -> None:
    [dora] = earlier(tmp_path / "dora", {"dora": True})
    [other] = earlier(tmp_path / "other", {}, model="gpt2")
    cases = {"no readable adapter": {"source": f"file://{tmp_path}"}, "only plain LoRA adapters": dora, "another model": other}
    for sentence, adapter in cases.items():
        with pytest.raises(ConfigurationError, match=rf"^spec\.method\.lora\.frozenAdapters\[0\]\.source: .*{sentence}"):
            learner(tiny.llama(), document({"frozenAdapters": [adapter]}))


def test_a_second_task_learns_beside_the_first(tmp_path: Path) -> None:
    first, second = ([{"text": text} for _, text in corpora.functions(package)[:80]] for package in ("asyncio", "xml"))
    base = learn(tmp_path / "base", first[:40] + second[:40], model={"config": LLAMA}, training={"maxSteps": 60})
    common: dict[str, Any] = {"model": {"source": f"file://{base.model}"}, "export": {"mergeAdapters": False}}
    one = learn(tmp_path / "one", first, **common, method={"type": "LoRA"}, training={"maxSteps": 40})
    beside = {"type": "LoRA", "lora": {"rank": 4, "frozenAdapters": [{"source": f"file://{one.model}"}]}}
    two = learn(tmp_path / "two", second, **common, method=beside, training={"maxSteps": 40})
    assert two.after["loss"] < two.before["loss"] - 0.1
    both, alone = (load_file(learnt.model / "adapter_model.safetensors") for learnt in (two, one))
    for name, weight in alone.items():
        if "lora_B" in name:  # the first one's part is in the second export, as it was
            assert torch.equal(both[name][:, 4:], weight), name
