"""Penalties on leaving the starting weights, and rehearsal: definitions, any number of ranks, and that less is forgotten."""

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
OBJECTIVE = CausalLM(tiny.spec(data={"maxLength": 16}), tiny.tokenizer())
RECORDS = [Row({"text": " ".join(f"w{(n * k) % 63 + 1}" for k in range(3 + n % 5))}, "rows", {}) for n in range(1, 12)]


class Texts:
    """A source of the records above."""

    identity = None

    def rows(self) -> Any:
        return iter(RECORDS)


def test_the_penalty_is_half_the_weighted_square_of_the_distance() -> None:
    weights = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    importances = [0.5, torch.rand(4)]
    held = Regularizer(weights, importances)
    assert held.penalty().item() == 0
    moves = [torch.randn(3, 2), torch.randn(4)]
    for weight, move in zip(weights, moves, strict=True):
        weight.data += move
    expected = sum(0.5 * (i * move**2).sum() for i, move in zip(importances, moves, strict=True))
    assert held.penalty().item() == pytest.approx(float(expected), rel=1e-5)
    held.penalty().backward()
    for weight, i, move in zip(weights, importances, moves, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, i * move)


def test_importance_is_the_mean_of_the_rows_squared_gradients() -> None:
    model = tiny.llama()
    weights = list(model.parameters())
    rows = draw_samples(OBJECTIVE, [Texts()], 8, seed=3)
    assert len(rows) == 8
    found = estimate_importance(model, weights, OBJECTIVE, Layout(), rows, ALONE, lambda: None)
    expected = [torch.zeros_like(weight) for weight in weights]
    for row in rows:
        ids = torch.tensor(row["input_ids"])[None].long()
        loss = model(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
        for total, gradient in zip(expected, torch.autograd.grad(loss, weights), strict=True):
            total += gradient**2 / 8
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    assert all(weight.grad is None for weight in weights)


def test_each_record_is_as_likely_as_any_other() -> None:
    counts = dict.fromkeys((record.values["text"] for record in RECORDS), 0)
    for seed in range(2000):
        for record in reservoir_sample(RECORDS, 4, seed):
            counts[record.values["text"]] += 1
    assert all(count == pytest.approx(2000 * 4 / 11, rel=0.15) for count in counts.values())
    assert reservoir_sample(RECORDS, 4, 7) == reservoir_sample(iter(RECORDS), 4, 7)
    assert reservoir_sample(RECORDS, 20, 7) == RECORDS


def test_nothing_to_measure_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"^spec.data.replay: no row is left to estimate importance on"):
        draw_samples(OBJECTIVE, [], 8, seed=0)


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    rows = [{"text": text} for _, text in corpora.functions("asyncio")[:150]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "earlier.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": {"replay": [{"source": f"file://{folder}/earlier.jsonl"}]}, **changes}


def test_any_number_of_ranks_is_held_back_alike(tmp_path: Path) -> None:
    rows = [{"text": text} for _, text in corpora.functions("xml")[:60]]
    changes = document(tmp_path, model={"config": LLAMA})
    wanted = {"l2sp": 0.1, "ewc": {"strength": 0.01, "rows": 10}}
    training = {"maxSteps": 6, "batchSize": 12, "logEverySteps": 1, "continualLearning": wanted}
    alone, together = (
        learn(tmp_path / str(size), rows, size, training=training | {"microBatchSize": 12 // size // 2}, **changes)
        for size in (1, 3)
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


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt functions of one package."""
    before = [{"text": text} for _, text in corpora.functions("asyncio")[:150]]
    return learn(tmp_path_factory.mktemp("first"), before, model={"config": LLAMA}, training={"maxSteps": 150}).model


def again(folder: Path, first: Path, data: dict[str, Any], **training: Any) -> tuple[float, float]:
    """The loss on the evaluation rows, and on the functions of another package that the first model has then learnt."""
    after = [{"text": text} for _, text in corpora.functions("xml")[:150]]
    learnt = learn(
        folder, after, training={"maxSteps": 60, **training}, model={"source": f"file://{first}"},
        data={"evaluationFraction": None, **data},
    )  # fmt: skip
    return learnt.after["loss"], learnt.losses[-1]


def test_what_was_learnt_before_is_kept(tmp_path: Path, first: Path) -> None:
    earlier = document(tmp_path)["data"]["replay"]
    known = {"evaluation": earlier}
    free, new_free = again(tmp_path / "free", first, known)
    elastic, new_elastic = again(
        tmp_path / "elastic", first, known | {"replay": earlier}, continualLearning={"ewc": {"strength": 0.3, "rows": 64}}
    )
    pulled, new_pulled = again(tmp_path / "pulled", first, known, continualLearning={"l2sp": 1.0})
    assert free > 3.2, "there is something to forget: it was 1.8"
    assert elastic < free - 0.8
    assert pulled < free - 0.8
    # What matters is known to the one and not to the other, so that it can learn more of what is new.
    assert new_free < new_elastic < new_pulled - 0.4


def test_what_is_rehearsed_in_part_is_kept_as_a_whole(tmp_path: Path, first: Path) -> None:
    rows = [json.dumps({"text": text}) + "\n" for _, text in corpora.functions("asyncio")[:150]]
    (tmp_path / "rehearsed.jsonl").write_text("".join(rows[::2]))
    (tmp_path / "others.jsonl").write_text("".join(rows[1::2]))
    known = {"evaluation": [{"source": f"file://{tmp_path}/others.jsonl"}]}
    earlier = {"replay": [{"source": f"file://{tmp_path}/rehearsed.jsonl"}]}
    free, _ = again(tmp_path / "free", first, known)
    kept, _ = again(tmp_path / "kept", first, known | earlier, continualLearning={"replay": {"share": 0.2}})
    assert free > 3.2, "there is something to forget: it was 1.8"
    assert kept < free - 0.7
