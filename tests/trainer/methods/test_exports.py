"""What each method leaves behind is what was trained, merged or alone, whatever the ZeRO stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from tests.trainer import ranks, tiny, training
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune_trainer.engine import merge
from finetune_trainer.methods.quantization import quantize

STAGES: dict[int, dict[str, Any]] = {
    0: {},
    2: {},
    # Without this nothing of a tiny model would be partitioned.
    3: {"config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}},
}
CLASSIFIER = {"objective": {"type": "SequenceClassification"}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA with a new head": ("bert", CLASSIFIER | {"method": {"type": "LoRA", "lora": {"rank": 4}}}),
    "DoRA": ("llama", {"method": {"type": "LoRA", "lora": {"rank": 4, "dora": True}}}),
    "DoRA, transposed and biased": ("gpt2", {"method": {"type": "LoRA", "lora": {"rank": 4, "dora": True}}}),
    "rsLoRA": ("llama", {"method": {"type": "LoRA", "lora": {"rank": 4, "rankStabilized": True}}}),
    "QLoRA": ("llama", {"method": {"type": "LoRA", "lora": {"quantization": "NF4"}}}),
    "QLoRA with some layers, and DoRA": (
        "llama",
        {"method": {"type": "LoRA", "lora": {"quantization": "NF4", "dora": True, "targetModules": ["q_proj", "v_proj"]}}},
    ),
    "QLoRA with a new head": ("bert", CLASSIFIER | {"method": {"type": "LoRA", "lora": {"quantization": "NF4"}}}),
    "IA3": ("llama", {"method": {"type": "IA3"}}),
    "IA3, transposed and biased": ("gpt2", {"method": {"type": "IA3"}}),
    "IA3 with a new head": ("bert", CLASSIFIER | {"method": {"type": "IA3"}}),
}
AUTO = {"bert": AutoModelForSequenceClassification, "gpt2": AutoModelForCausalLM, "llama": AutoModelForCausalLM}


def case(folder: Path, name: str, stage: int) -> tuple[Path, str, dict[str, Any]]:
    model, changes = CASES[name]
    source = {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None}
    return (
        folder / f"{name} {stage}",
        model,
        merge(changes, {"model": source, "deepspeed": {"zeroStage": stage} | STAGES[stage]}),
    )


def test_merged_and_alone(tmp_path: Path) -> None:
    cases = {
        (name, stage): case(tmp_path, name, stage) for name in CASES for stage in STAGES if not ("QLoRA" in name and stage == 3)
    }
    results = dict(zip(cases, ranks.run(training.export_both, 2, list(cases.values()))[0], strict=True))
    for (name, stage), (folder, model, _) in cases.items():
        rows, logits = training.ROWS[_objective(name)](3), torch.from_numpy(results[name, stage])
        before = getattr(tiny, model)()
        assert (_logits(before, rows) - logits).abs().max() > 1e-3, f"{name}: nothing was learnt"
        torch.testing.assert_close(logits, torch.from_numpy(results[name, 0]), rtol=1e-2, atol=1e-3, msg=f"{name} {stage}")
        merged = AUTO[model].from_pretrained(folder / "merged")
        assert not (folder / "merged" / "adapter_config.json").exists()
        torch.testing.assert_close(_logits(merged, rows), logits, rtol=1e-4, atol=1e-5, msg=f"{name} {stage} merged")
        if "QLoRA" in name:
            quantize(before)  # else the adapter stands beside other weights than those it was trained with
        alone = peft.PeftModel.from_pretrained(before, folder / "alone")
        assert not (folder / "alone" / "model.safetensors").exists()
        torch.testing.assert_close(_logits(alone, rows), logits, rtol=1e-4, atol=1e-5, msg=f"{name} {stage} alone")


def _objective(name: str) -> str:
    found: str = CASES[name][1].get("objective", {"type": "CausalLM"})["type"]
    return found


def _logits(model: Any, rows: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**rows | {"labels": None}).logits
    return found
