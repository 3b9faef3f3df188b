"""Each method goes on from a checkpoint as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.trainer import ranks, training

from finetune_trainer.engine import merge

SOURCE = {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None}
HEAD = {"objective": {"type": "SequenceClassification"}}
NF4 = {"method": {"type": "LoRA", "lora": {"quantization": "NF4"}}}
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "LoRA with a new head": ("bert", 3, HEAD | {"method": {"type": "LoRA"}}),
    "DoRA": ("gpt2", 2, {"method": {"type": "LoRA", "lora": {"dora": True}}}),
    "IA3": ("llama", 3, {"method": {"type": "IA3"}}),
    "PromptTuning": ("llama", 1, {"method": {"type": "PromptTuning"}, "export": {"mergeAdapters": False}}),
    "QLoRA, whole": ("llama", 0, NF4),
    "QLoRA": ("bert", 2, HEAD | NF4),
}


def test_a_second_life_goes_on(tmp_path: Path) -> None:
    cases = []
    for name, (model, stage, changes) in CASES.items():
        folder = tmp_path / name
        common = {
            "model": SOURCE, "deepspeed": {"zeroStage": stage},
            "checkpoint": {"storage": f"file://{folder}", "everySteps": 2, "keepLast": 10},
        }  # fmt: skip
        cases.append((folder, model, merge(common, changes)))
    for name, (first, second) in zip(CASES, ranks.run(training.interrupted, 2, cases)[0], strict=True):
        losses, logits = first
        assert len(losses) == 4
        assert second[0] == losses[2:], name
        assert np.array_equal(second[1], logits), name
