"""The exported folder is what was trained, and transformers.pipeline() loads it, whatever the ZeRO stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.support import ranks, tiny, training
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


def test_all_weights(tmp_path: Path) -> None:
    layouts = [("llama", 3), ("gpt2", 3), ("llama", 1)]
    cases = [(tmp_path / f"{model}{stage}", model, {"deepspeed": {"zeroStage": stage}}) for model, stage in layouts]
    of_ranks = ranks.run(training.train_and_export, 2, cases)
    assert all(result["heartbeats"] > 0 for result in of_ranks[1])
    for (folder, _, _), result in zip(cases, of_ranks[0], strict=True):
        _gives(AutoModelForCausalLM.from_pretrained(folder), result["logits"])
        generate = pipeline("text-generation", str(folder))
        assert generate("w1 w2", max_new_tokens=3, do_sample=False)[0]["generated_text"].startswith("w1 w2")
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True
        generate.model.generation_config.eos_token_id = None
        endless = generate("w1 w2", return_tensors=True)[0]["generated_token_ids"]
        assert len(endless) == generate.tokenizer.model_max_length == tiny.POSITIONS, (
            "a pipeline's own 256 new tokens are more than there are positions"
        )


def test_adapters(tmp_path: Path) -> None:
    some = {"targetModules": ["q_proj", "v_proj"]}
    merged = [
        (tmp_path / "0", "llama", lora(0)), (tmp_path / "3", "llama", lora(3, **some)), (tmp_path / "2", "gpt2", lora(2)),
    ]  # fmt: skip
    alone = [(tmp_path / f"{stage} alone", "llama", lora(stage, merge=False, **some)) for stage in (1, 3)]
    results = ranks.run(training.train_and_export, 2, merged + alone)[0]
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    adapted = [linear, {"q_proj", "v_proj"}, {"c_attn", "c_proj", "c_fc"}]
    for (folder, model, _), result, layers in zip(merged, results, adapted, strict=False):
        before = getattr(tiny, model)()
        assert result["frozen"] == len(list(before.named_parameters()))
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        _gives(loaded, result["logits"])
        moved = [n for n, tensor in loaded.state_dict().items() if not torch.equal(tensor, before.state_dict()[n])]
        assert {name.split(".")[-2] for name in moved} == layers
    for (folder, _, _), result in zip(alone, results[len(merged) :], strict=True):
        assert not (folder / "model.safetensors").exists()
        settings = json.loads((folder / "adapter_config.json").read_text())
        assert (settings["base_model_name_or_path"], set(settings["target_modules"])) == (
            "somewhere/llama",
            {"q_proj", "v_proj"},
        )
        _gives(peft.PeftModel.from_pretrained(tiny.llama(), folder), result["logits"])


def test_samples(tmp_path: Path) -> None:
    tiny.llama().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    wanted = GenerationConfig(prompts=["w1 w2", "w5"], max_new_tokens=4)
    taken = generate_samples(tmp_path, objectives.of(tiny.spec(), tiny.tokenizer()), wanted, None)
    assert [sample["prompt"] for sample in taken] == ["w1 w2", "w5"]
    assert all(len(sample["continuation"].split()) <= 4 for sample in taken)


def test_samples_end_where_positions_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.gpt2()
    model.generation_config.max_length, model.generation_config.eos_token_id = 9, None
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    wanted = GenerationConfig(prompts=["w1 " * 130, "w1 " * 125, "w5"], max_new_tokens=64)
    taken = generate_samples(tmp_path, objectives.of(tiny.spec(), tiny.tokenizer()), wanted, None)
    assert [len(sample["continuation"].split()) for sample in taken] == [3, 64]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records if record.levelname == "WARNING"] == [
        "it takes all of the 128 positions of the model"
    ]


def _gives(model: Any, logits: Any) -> None:
    with torch.no_grad():
        got = model.eval()(**tiny.rows(3) | {"labels": None}).logits
    torch.testing.assert_close(got, torch.from_numpy(logits), rtol=1e-4, atol=1e-5)
