"""The export of each method computes what the trained model computes, merged or as an adapter, at every ZeRO stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.support import exports, ranks, tiny, training
from tests.support.slow import slow
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune_trainer.methods.components.heads import head_modules
from finetune_trainer.methods.components.quantization import quantize_linear_layers
from finetune_trainer.training.engine import merge

STAGES: dict[int, dict[str, Any]] = {
    0: {},
    2: {},
    # The default threshold would leave all parameters of a tiny model unpartitioned.
    3: {"config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}},
}
CLASSIFIER = {"objective": {"type": "SequenceClassification"}}

BOTTLENECK = {"method": {"type": "Bottleneck", "bottleneck": {"size": 8}}}


def lora(**settings: Any) -> dict[str, Any]:
    return {"method": {"type": "LoRA", "lora": {"rank": 4, **settings}}}


CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "LoRA with a new head": ("bert", (0, 2, 3), CLASSIFIER | lora()),
    "DoRA": ("llama", (0, 2, 3), lora(dora=True)),
    "DoRA, transposed and biased": ("gpt2", (0, 3), lora(dora=True)),
    "LoRA with added tokens": ("llama_with_added_tokens", (0, 2, 3), lora()),
    "LoRA with added tokens, untied": ("untied_llama_with_added_tokens", (0, 3), lora()),
    "LoRA on a tied head": ("gpt2", (0,), lora(targetModules=["c_attn", "lm_head"])),
    "Bottleneck with added tokens": ("llama_with_added_tokens", (0,), BOTTLENECK),
    "rsLoRA": ("llama", (0,), lora(rankStabilized=True)),
    "QLoRA": ("llama", (0, 2), lora(quantization="NF4")),
    "QLoRA with some layers, and DoRA": (
        "llama",
        (0,),
        lora(quantization="NF4", dora=True, targetModules=["q_proj", "v_proj"]),
    ),
    "QLoRA with a new head": ("bert", (0,), CLASSIFIER | lora(quantization="NF4")),
    "Bottleneck": ("gpt2", (0, 2), BOTTLENECK),
    "Bottleneck with a new head": ("bert", (0, 3), CLASSIFIER | BOTTLENECK),
    "IA3": ("llama", (0, 3), {"method": {"type": "IA3"}}),
    "IA3, transposed and biased": ("gpt2", (0,), {"method": {"type": "IA3"}}),
    "IA3 with a new head": ("bert", (0, 3), CLASSIFIER | {"method": {"type": "IA3"}}),
}


def export_case(folder: Path, name: str, stage: int) -> tuple[Path, str, dict[str, Any]]:
    model, _, changes = CASES[name]
    source = {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None}
    return (
        folder / f"{name} {stage}",
        model,
        merge(changes, {"model": source, "deepspeed": {"zeroStage": stage} | STAGES[stage]}),
    )


@pytest.mark.parametrize("every_stage", [False, slow(True)], ids=["LoRA at every stage", "all at every stage"])
def test_exports_what_was_trained_merged_and_as_adapter(every_stage: bool, tmp_path: Path) -> None:
    cases = {
        (name, stage): export_case(tmp_path, name, stage)
        for name, (_, stages, _) in CASES.items()
        for stage in (stages if every_stage or name == "LoRA with a new head" else stages[-1:])
    }
    results = dict(zip(cases, ranks.run(exports.export_merged_and_separate, 2, list(cases.values()))[0], strict=True))
    for (name, stage), (folder, model, _) in cases.items():
        rows, logits = training.ROWS[objective_of(name)](3), torch.from_numpy(results[name, stage])
        before = getattr(tiny, model)()
        assert (compute_logits(before, rows) - logits).abs().max() > 1e-3, f"{name}: the weights did not change"
        unpartitioned = torch.from_numpy(results.get((name, 0), results[name, stage]))
        torch.testing.assert_close(logits, unpartitioned, rtol=1e-2, atol=1e-3, msg=f"{name} {stage}")
        auto_class = AutoModelForSequenceClassification if model == "bert" else AutoModelForCausalLM
        merged = auto_class.from_pretrained(folder / "merged")
        assert not (folder / "merged" / "adapter_config.json").exists()
        torch.testing.assert_close(compute_logits(merged, rows), logits, rtol=1e-4, atol=1e-5, msg=f"{name} {stage} merged")
        if "Bottleneck" in name:
            continue  # it is only exported merged
        if "QLoRA" in name:  # the adapter was trained on quantized weights
            quantize_linear_layers(before, head_modules(before))
        adapter = peft.PeftModel.from_pretrained(before, folder / "alone")
        assert not (folder / "alone" / "model.safetensors").exists()
        torch.testing.assert_close(compute_logits(adapter, rows), logits, rtol=1e-4, atol=1e-5, msg=f"{name} {stage} alone")


def objective_of(name: str) -> str:
    objective: str = CASES[name][2].get("objective", {"type": "CausalLM"})["type"]
    return objective


def compute_logits(model: Any, rows: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**rows | {"labels": None}).logits
    return logits
