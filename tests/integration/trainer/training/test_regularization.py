"""L2-SP, EWC and replay: their definitions, their independence of the world size and that they reduce forgetting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import corpora, tiny
from tests.support.learning import LLAMA, learn

from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.training.regularization import Regularizer, draw_samples, estimate_importance, reservoir_sample

ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
OBJECTIVE = CausalLM.from_spec(tiny.spec(data={"maxLength": 16}), tiny.tokenizer())
ROWS = [Row({"text": " ".join(f"w{(n * k) % 63 + 1}" for k in range(3 + n % 5))}, "rows", {}) for n in range(1, 12)]


class Texts:
    """A source of the rows above."""

    identity = None

    def rows(self) -> Any:
        return iter(ROWS)


def test_the_penalty_is_half_the_weighted_square_of_the_distance() -> None:
    weights = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    importances = [0.5, torch.rand(4)]
    regularizer = Regularizer(weights, importances)
    assert regularizer.penalty().item() == 0
    moves = [torch.randn(3, 2), torch.randn(4)]
    for weight, move in zip(weights, moves, strict=True):
        weight.data += move
    expected = sum(0.5 * (i * move**2).sum() for i, move in zip(importances, moves, strict=True))
    assert regularizer.penalty().item() == pytest.approx(float(expected), rel=1e-5)
    regularizer.penalty().backward()
    for weight, i, move in zip(weights, importances, moves, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, i * move)


def test_importance_is_the_mean_squared_gradient() -> None:
    model = tiny.llama()
    weights = list(model.parameters())
    rows = draw_samples(OBJECTIVE, [Texts()], 8, seed=3)
    assert len(rows) == 8
    importances = estimate_importance(model, weights, OBJECTIVE, Layout(), rows, ALONE)
    expected = [torch.zeros_like(weight) for weight in weights]
    for row in rows:
        ids = torch.tensor(row["input_ids"])[None].long()
        loss = model(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
        for total, gradient in zip(expected, torch.autograd.grad(loss, weights), strict=True):
            total += gradient**2 / 8
    for importance, expected_importance in zip(importances, expected, strict=True):
        torch.testing.assert_close(importance, expected_importance, rtol=1e-4, atol=1e-6)
    assert all(weight.grad is None for weight in weights)


def test_samples_each_row_with_equal_probability() -> None:
    counts = dict.fromkeys((row.values["text"] for row in ROWS), 0)
    for seed in range(2000):
        for row in reservoir_sample(ROWS, 4, seed):
            counts[row.values["text"]] += 1
    assert all(count == pytest.approx(2000 * 4 / 11, rel=0.15) for count in counts.values())
    assert reservoir_sample(ROWS, 4, 7) == reservoir_sample(iter(ROWS), 4, 7)
    assert reservoir_sample(ROWS, 20, 7) == ROWS


def test_rejects_replay_data_without_rows() -> None:
    with pytest.raises(DataError, match=r"^spec.data.replay: no row is left to estimate importance on"):
        draw_samples(OBJECTIVE, [], 8, seed=0)


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    rows = [{"text": text} for _, text in corpora.functions("asyncio")[:150]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "earlier.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": {"replay": [{"source": f"file://{folder}/earlier.jsonl"}]}, **changes}


def test_penalties_are_equal_at_every_world_size(tmp_path: Path) -> None:
    rows = [{"text": text} for _, text in corpora.functions("xml")[:60]]
    changes = document(tmp_path, model={"config": LLAMA})
    penalties = {"l2sp": 0.1, "ewc": {"strength": 0.01, "rows": 10}}
    training = {
        "maxSteps": 6,
        "batchSize": 12,
        "logEverySteps": 1,
        "continualLearning": penalties,
        "schedule": {"warmupSteps": 0},
    }
    alone, together = (
        learn(tmp_path / str(size), rows, size, training=training | {"microBatchSize": 12 // size // 2}, **changes)
        for size in (1, 2)
    )
    free = learn(
        tmp_path / "free",
        rows,
        training=training | {"microBatchSize": 6, "continualLearning": {"l2sp": 1e-9}},
        model={"config": LLAMA},
    )
    assert together.losses == pytest.approx(alone.losses, rel=1e-4)
    assert together.after == pytest.approx(alone.after, rel=1e-3)
    assert free.losses[0] == pytest.approx(alone.losses[0])
    assert free.losses[-1] != pytest.approx(alone.losses[-1], rel=1e-3)


def train_on_other_package(folder: Path, first: Path, data: dict[str, Any], **training: Any) -> tuple[float, float]:
    """Train the first model on functions of another package; returns its evaluation loss and its last training loss."""
    after = [{"text": text} for _, text in corpora.functions("xml")[:150]]
    run = learn(
        folder, after, training={"maxSteps": 60, **training}, model={"source": f"file://{first}"},
        data={"evaluationFraction": None, **data},
    )  # fmt: skip
    return run.after["loss"], run.losses[-1]


def test_penalties_and_replay_reduce_forgetting(tmp_path: Path) -> None:
    """A model of one package is trained on another one. Half of the earlier rows are used, and the others are evaluated on."""
    earlier = [{"text": text} for _, text in corpora.functions("asyncio")[:150]]
    first = learn(tmp_path / "first", earlier, model={"config": LLAMA}, training={"maxSteps": 150}).model
    for name, rows in (("known", earlier[::2]), ("others", earlier[1::2])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = {"evaluation": [{"source": f"file://{tmp_path}/others.jsonl"}]}
    known = evaluation | {"replay": [{"source": f"file://{tmp_path}/known.jsonl"}]}

    def train(name: str, data: dict[str, Any], **penalties: Any) -> tuple[float, float]:
        return train_on_other_package(tmp_path / name, first, data, **({"continualLearning": penalties} if penalties else {}))

    free, new_free = train("free", evaluation)
    elastic, new_elastic = train("elastic", known, ewc={"strength": 0.3, "rows": 64})
    pulled, new_pulled = train("pulled", evaluation, l2sp=1.0)
    replayed, _ = train("replayed", known, replay={"share": 0.2})
    assert free > 3.2, "without regularization the loss rises from 1.8"
    assert elastic < free - 0.8
    assert pulled < free - 0.8
    assert replayed < free - 0.7
    # EWC knows which weights are important, L2-SP does not, so EWC learns more of the new data.
    assert new_free < new_elastic < new_pulled - 0.4
