"""The exported folder has the trained weights at every ZeRO stage, and transformers.pipeline() loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.support import exports, ranks, tiny
from transformers import AutoModelForCausalLM, pipeline

from finetune_trainer import objectives
from finetune_trainer.config import GenerationConfig
from finetune_trainer.export.samples import generate_samples


def lora(stage: int, merge: bool = True, **settings: Any) -> dict[str, Any]:
    return {
        "model": {"initialization": "Pretrained", "source": "hf://somewhere/llama", "tokenizer": None},
        "method": {"type": "LoRA", "lora": {"rank": 4, **settings}},
        "deepspeed": {"zeroStage": stage},
        "export": {"mergeAdapters": merge},
    }


def test_exports_all_weights(tmp_path: Path) -> None:
    layouts = [("llama", 3), ("gpt2", 3), ("llama", 1)]
    cases = [(tmp_path / f"{model}{stage}", model, {"deepspeed": {"zeroStage": stage}}) for model, stage in layouts]
    results = ranks.run(exports.train_and_export, 2, cases)
    assert all(result["heartbeats"] > 0 for result in results[1])
    for (folder, _, _), result in zip(cases, results[0], strict=True):
        _assert_logits(AutoModelForCausalLM.from_pretrained(folder), result["logits"])
        generate = pipeline("text-generation", str(folder))
        assert generate("w1 w2", max_new_tokens=3, do_sample=False)[0]["generated_text"].startswith("w1 w2")
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True
        generate.model.generation_config.eos_token_id = None
        tokens = generate("w1 w2", return_tensors=True)[0]["generated_token_ids"]
        assert len(tokens) == generate.tokenizer.model_max_length == tiny.POSITIONS, (
            "the pipeline's default of 256 new tokens exceeds the positions"
        )


def test_exports_adapters(tmp_path: Path) -> None:
    two_layers = {"targetModules": ["q_proj", "v_proj"]}
    merged = [
        (tmp_path / "0", "llama", lora(0)), (tmp_path / "3", "llama", lora(3, **two_layers)), (tmp_path / "2", "gpt2", lora(2)),
    ]  # fmt: skip
    separate = [(tmp_path / f"{stage} separate", "llama", lora(stage, merge=False, **two_layers)) for stage in (1, 3)]
    results = ranks.run(exports.train_and_export, 2, merged + separate)[0]
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    adapted = [linear, {"q_proj", "v_proj"}, {"c_attn", "c_proj", "c_fc"}]
    for (folder, model, _), result, layers in zip(merged, results, adapted, strict=False):
        before = getattr(tiny, model)()
        assert result["frozen"] == len(list(before.named_parameters()))
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        _assert_logits(loaded, result["logits"])
        changed = [n for n, tensor in loaded.state_dict().items() if not torch.equal(tensor, before.state_dict()[n])]
        assert {name.split(".")[-2] for name in changed} == layers
    for (folder, _, _), result in zip(separate, results[len(merged) :], strict=True):
        assert not (folder / "model.safetensors").exists()
        settings = json.loads((folder / "adapter_config.json").read_text())
        assert (settings["base_model_name_or_path"], set(settings["target_modules"])) == (
            "somewhere/llama",
            {"q_proj", "v_proj"},
        )
        _assert_logits(peft.PeftModel.from_pretrained(tiny.llama(), folder), result["logits"])


def test_generates_samples(tmp_path: Path) -> None:
    tiny.llama().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    generation = GenerationConfig(prompts=["w1 w2", "w5"], max_new_tokens=4)
    samples = generate_samples(tmp_path, objectives.from_spec(tiny.spec(), tiny.tokenizer()), generation, None)
    assert [sample["prompt"] for sample in samples] == ["w1 w2", "w5"]
    assert all(len(sample["continuation"].split()) <= 4 for sample in samples)


def test_samples_do_not_exceed_the_positions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.gpt2()
    model.generation_config.max_length, model.generation_config.eos_token_id = 9, None
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    generation = GenerationConfig(prompts=["w1 " * 130, "w1 " * 125, "w5"], max_new_tokens=64)
    samples = generate_samples(tmp_path, objectives.from_spec(tiny.spec(), tiny.tokenizer()), generation, None)
    assert [len(sample["continuation"].split()) for sample in samples] == [3, 64]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records if record.levelname == "WARNING"] == [
        "it takes all of the 128 positions of the model"
    ]


def _assert_logits(model: Any, logits: Any) -> None:
    with torch.no_grad():
        actual = model.eval()(**tiny.rows(3) | {"labels": None}).logits
    torch.testing.assert_close(actual, torch.from_numpy(logits), rtol=1e-4, atol=1e-5)
