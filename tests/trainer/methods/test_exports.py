"""What each method leaves behind is what was trained, merged or alone, whatever the ZeRO stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.trainer import ranks, tiny, training
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune_trainer.engine import merge

STAGES = (0, 1, 2, 3)
CLASSIFIER = {"objective": {"type": "SequenceClassification"}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA with a new head": ("bert", CLASSIFIER | {"method": {"type": "LoRA", "lora": {"rank": 4}}}),
}
AUTO = {"bert": AutoModelForSequenceClassification, "gpt2": AutoModelForCausalLM, "llama": AutoModelForCausalLM}


def case(folder: Path, name: str, stage: int, merged: bool) -> tuple[Path, str, dict[str, Any]]:
    model, changes = CASES[name]
    document = {
        "model": {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None},
        "deepspeed": {"zeroStage": stage},
        "export": {"mergeAdapters": merged},
    }
    return folder / f"{stage} {merged}", model, merge(document, changes)


@pytest.mark.parametrize("name", CASES)
def test_merged_and_alone(name: str, tmp_path: Path) -> None:
    cases = [case(tmp_path, name, stage, merged) for stage in STAGES for merged in (True, False)]
    results = ranks.run(training.export_all, 2, cases)[0]
    model = CASES[name][0]
    before = getattr(tiny, model)()
    with torch.no_grad():
        start = before.eval()(**training.ROWS[_objective(name)](3) | {"labels": None}).logits
    for (folder, _, document), result in zip(cases, results, strict=True):
        assert (start - torch.from_numpy(result["logits"])).abs().max() > 1e-3, "nothing was learnt"
        if document["export"]["mergeAdapters"]:
            loaded = AUTO[model].from_pretrained(folder)
            assert not (folder / "adapter_config.json").exists()
        else:
            loaded = peft.PeftModel.from_pretrained(getattr(tiny, model)(), folder)
            assert not (folder / "model.safetensors").exists()
        _gives(loaded, result["logits"], training.ROWS[_objective(name)](3))


def _objective(name: str) -> str:
    found: str = CASES[name][1].get("objective", {"type": "CausalLM"})["type"]
    return found


def _gives(model: Any, logits: Any, rows: dict[str, Any]) -> None:
    with torch.no_grad():
        got = model.eval()(**rows | {"labels": None}).logits
    torch.testing.assert_close(got, torch.from_numpy(logits), rtol=1e-4, atol=1e-5)
