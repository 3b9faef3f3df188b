"""Each method resumes from a checkpoint exactly, and on fewer ranks approximately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import exports, ranks
from tests.support.slow import slow

from finetune_trainer.training.engine import merge

SOURCE = {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None}
HEAD = {"objective": {"type": "SequenceClassification"}}
NF4 = {"method": {"type": "LoRA", "lora": {"quantization": "NF4"}}}
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "LoRA with a new head": ("bert", 3, HEAD | {"method": {"type": "LoRA"}}),
    "LoRA with added tokens": ("llama_with_added_tokens", 3, {"method": {"type": "LoRA"}}),
    "DoRA": ("gpt2", 2, {"method": {"type": "LoRA", "lora": {"dora": True}}}),
    "IA3": ("llama", 3, {"method": {"type": "IA3"}}),
    "Bottleneck with a new head": ("bert", 3, HEAD | {"method": {"type": "Bottleneck"}}),
    "PromptTuning": ("llama", 1, {"method": {"type": "PromptTuning"}, "export": {"mergeAdapters": False}}),
    "QLoRA, unpartitioned": ("llama", 0, NF4),
    "QLoRA": ("bert", 2, HEAD | NF4),
    "layer decay": ("llama", 2, {"training": {"optimizer": {"layerDecay": 0.5}}}),
    **{
        # The checkpoint is from the last step in which only the head is trained; the other layers begin after the resume.
        f"unfreezing at stage {stage}": ("llama", stage, {"method": {"unfreeze": {"everySteps": 2}}})
        for stage in (0, 1, 3)
    },
}
QUICK = (
    "LoRA with a new head", "IA3", "Bottleneck with a new head", "PromptTuning", "QLoRA", "layer decay",
    "unfreezing at stage 3",
)  # fmt: skip


@pytest.mark.parametrize(
    "names", [QUICK, slow([name for name in CASES if name not in QUICK])], ids=["each method", "other stages and settings"]
)
def test_resumes_from_the_checkpoint(names: Sequence[str], tmp_path: Path) -> None:
    cases = []
    for name in names:
        model, stage, changes = CASES[name]
        folder = tmp_path / name
        common = {
            "model": SOURCE, "deepspeed": {"zeroStage": stage},
            "checkpoint": {"storage": f"file://{folder}", "everySteps": 2, "keepLast": 10},
        }  # fmt: skip
        cases.append((folder, model, merge(common, changes)))
    same_size = ranks.run(exports.train_attempts, 2, cases, ("first", "second"))[0]
    fewer_ranks = ranks.run(exports.train_attempts, 1, cases, ("third",))[0]
    for name, (first, second), [third] in zip(names, same_size, fewer_ranks, strict=True):
        losses, logits = first
        assert len(losses) == 4
        assert second[0] == losses[2:], name
        assert np.array_equal(second[1], logits), name
        assert third[0] == pytest.approx(losses[2:], rel=1e-3), name
        np.testing.assert_allclose(third[1], logits, rtol=1e-2, atol=1e-3, err_msg=name)
