"""Complete runs on real data, from the document to the exported model, with the metrics before and after training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel
from tests.support import launch, ranks

from finetune_trainer.training.engine import merge

BERT = {
    "model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
VIT = {
    "model_type": "vit", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.1,  # with 0.02 so narrow a model trains slowly
}  # fmt: skip

T5 = {
    "model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
}  # fmt: skip

BART = {
    "model_type": "bart", "d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 128,
    "dropout": 0.0,
}  # fmt: skip


@dataclass
class LearningResult:
    """A finished run: metrics of the starting and of the finished model on the evaluation data, the model and the losses."""

    before: dict[str, float]
    after: dict[str, float]
    model: Path
    losses: list[float]
    waiting: float
    """The share of the training time in which the first rank waited for data."""


def learn(
    folder: Path, rows: Sequence[dict[str, Any]], size: int = 1, run: Callable[..., list[Any]] = ranks.run, **changes: Any
) -> LearningResult:
    """Train on the rows, a fifth of which is held out, from scratch unless `model` has a source.

    Columns have the names of their roles, and several tasks are trained on the same rows. Other sections of the document are
    merged with `changes`. `run` starts the ranks. If `changes` say nothing else, a step is one micro-batch on each rank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": f"file://{folder}/rows.jsonl", "columns": {to_camel(role): role for row in rows[:1] for role in row}}
    tasks = changes.get("objective", {}).get("tasks", [])
    scratch = {"initialization": "Scratch", "config": BERT, "tokenizer": {"train": {"vocabSize": 600}}}
    model = changes.pop("model", {})
    batch_size = changes.get("training", {}).get("batchSize", 16)
    document: dict[str, Any] = {
        "model": model if "source" in model else scratch | model,
        "data": {
            "train": [source | {"task": task["name"]} for task in tasks] or [source],
            "evaluationFraction": 0.2,
            "maxLength": 128,
        },
        "training": {
            "maxSteps": 60, "batchSize": batch_size, "microBatchSize": batch_size // size, "logEverySteps": 20,
            "optimizer": {"learningRate": 3e-3}, "schedule": {"warmupSteps": 5},
        },
        "evaluation": {"atStart": True},
        "checkpoint": {"storage": f"file://{folder}/storage"},
    }  # fmt: skip
    path = folder / "train.json"
    path.write_text(json.dumps(merge(document, changes)))
    heard = run(launch.run_rank, size, path)
    assert [one.code for one in heard] == [0] * size, heard[0].outcome.message
    evaluations = [event.metrics for event in heard[0].events if event.event == "evaluated"]
    losses = [event.progress.loss for event in heard[0].events if event.event == "step"]
    times = [event for event in heard[0].events if event.event == "step_time"]
    waiting = sum(time.data_wait_seconds for time in times) / sum(time.seconds for time in times)
    return LearningResult(evaluations[0], evaluations[-1], folder / "storage/model", losses, waiting)
