"""Weighted sources, balanced labels and replay: the share of each in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import corpora, tiny
from tests.support.learning import learn

from finetune_trainer import config, objectives
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.dataloader import BatchBuilder
from finetune_trainer.data.loading.dataset import TOKENS, document_lengths
from finetune_trainer.data.loading.sampler import Sampler
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.inputs.class_labels import TARGET
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials

TOKENIZER = tokenizer_training.train_tokenizer(["alpha beta gamma " * 3, "0 1 2 3 4 5 6 7 8 9"], 400, adds_special_tokens=True)


def prepared(
    folder: Path, sources: dict[str, list[dict[str, Any]]], objective: str, replay: float | None = None, **data: Any
) -> tuple[Prepared, config.TrainSpec]:
    """Prepares the sources; with `replay` the last source is replayed with this share."""
    for name, rows in sources.items() if not (folder / "cache").exists() else ():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    weights = data.pop("weights", None)
    train = [{"source": f"file://{folder}/{name}.jsonl"} | ({"weight": weights[name]} if weights else {}) for name in sources]
    training: dict[str, Any] = {"maxSteps": 4}
    if replay:
        data["replay"] = [{"source": train.pop()["source"]}]
        training["continualLearning"] = {"replay": {"share": replay}}
    document = tiny.spec().document() | {"objective": {"type": objective}, "data": {"train": train, "maxLength": 64} | data}
    spec = config.TrainSpec.model_validate(document | {"training": training})
    return prepare(
        spec, objectives.from_spec(spec, TOKENIZER).encoder, SourceResolver(spec.objective, folder / "cache", Credentials())
    ), spec


def numbered(word: str, count: int) -> list[dict[str, Any]]:
    return [{"text": f"{word} {number}"} for number in range(count)]


def words_seen(prepared_data: Prepared, steps: int) -> dict[str, float]:
    """The share of each word among the documents of the steps."""
    sampler = Sampler(prepared_data.epoch, 10, 0, prepared_data.mixture)
    rows = np.concatenate([sampler.indices_for_step(step).rows for step in range(steps)])
    seen: dict[str, int] = {}
    for row in rows:
        kept = prepared_data.train[int(row)]
        for document in np.split(kept[TOKENS], np.cumsum(document_lengths(kept))[:-1]):
            word = TOKENIZER.decode(document, skip_special_tokens=True).split()[0]
            seen[word] = seen.get(word, 0) + 1
    return {word: count / sum(seen.values()) for word, count in seen.items()}


@pytest.mark.parametrize("packing", [False, True])
def test_sources_have_their_weights(tmp_path: Path, packing: bool) -> None:
    sources = {"alpha": numbered("alpha", 900), "beta": numbered("beta", 50), "gamma": numbered("gamma", 400)}
    prepared_data, _ = prepared(
        tmp_path, sources, "MaskedLM", packing=packing, weights={"alpha": 1, "beta": 2, "gamma": 1}, evaluationFraction=0.1
    )
    assert len(prepared_data.train) < 200 if packing else len(prepared_data.train) > 1150
    seen = words_seen(prepared_data, len(prepared_data.train) * 4 // 10)
    assert seen == pytest.approx({"alpha": 0.25, "beta": 0.5, "gamma": 0.25}, abs=0.03)
    for index in range(len(prepared_data.train) if packing else 0):
        row = prepared_data.train[index]
        text = TOKENIZER.decode(row[TOKENS], skip_special_tokens=True)
        assert sum(word in text for word in sources) == 1, "a packed sequence has one source"


def test_packs_sources_together_without_weights(tmp_path: Path) -> None:
    sources = {"alpha": numbered("alpha", 5), "beta": numbered("beta", 5)}
    prepared_data, _ = prepared(tmp_path, sources, "MaskedLM")
    assert prepared_data.mixture is None
    texts = [TOKENIZER.decode(prepared_data.train[index][TOKENS]) for index in range(len(prepared_data.train))]
    assert any("alpha" in text and "beta" in text for text in texts)


def test_other_weights_reuse_the_prepared_rows(tmp_path: Path) -> None:
    sources = {"alpha": numbered("alpha", 30), "beta": numbered("beta", 30)}
    shares = []
    for weights in ({"alpha": 1, "beta": 1}, {"alpha": 1, "beta": 3}):
        prepared_data, _ = prepared(tmp_path, sources, "MaskedLM", weights=weights)
        assert prepared_data.mixture is not None
        shares.append(prepared_data.mixture.shares)
    assert shares == [[1, 1], [1, 3]]
    assert len([path for path in (tmp_path / "cache/prepared").iterdir() if path.is_dir()]) == 1


def test_rejects_a_weighted_source_without_rows(tmp_path: Path) -> None:
    sources = {"alpha": numbered("alpha", 5), "beta": [{"text": ""}]}
    with pytest.raises(DataError, match=r"^spec.data.train\[1\].weight: nothing of file://.*beta.jsonl is left to learn from"):
        prepared(tmp_path, sources, "MaskedLM", weights={"alpha": 1, "beta": 1})


def test_balances_labels(tmp_path: Path) -> None:
    rows = [
        {"text": f"{word} {n}", "label": word}
        for word, count in (("alpha", 85), ("beta", 10), ("gamma", 5))
        for n in range(count)
    ]
    prepared_data, _ = prepared(tmp_path, {"rows": rows}, "SequenceClassification", resample="Balanced")
    assert words_seen(prepared_data, 30) == pytest.approx({"alpha": 1 / 3, "beta": 1 / 3, "gamma": 1 / 3}, abs=0.01)
    plain, _ = prepared(tmp_path, {"rows": rows}, "SequenceClassification")
    assert words_seen(plain, 30) == pytest.approx({"alpha": 0.85, "beta": 0.1, "gamma": 0.05})


OLD_AND_NEW = {"alpha": numbered("alpha", 300), "beta": numbered("beta", 100), "gamma": numbered("gamma", 30)}


@pytest.mark.parametrize("packing", [False, True])
def test_every_epoch_replays_its_share_and_keeps_its_length(tmp_path: Path, packing: bool) -> None:
    prepared_data, _ = prepared(tmp_path, OLD_AND_NEW, "MaskedLM", replay=0.25, packing=packing)
    new = prepared_data.epoch
    assert new == prepared_data.report.train.rows == 400 or packing
    assert prepared_data.report.replay is not None
    assert len(prepared_data.train) == new + prepared_data.report.replay.rows
    sampler = Sampler(new, new, 0, prepared_data.mixture)
    for epoch in range(5):
        rows = sampler.indices_for_step(epoch).rows
        assert (rows >= new).sum() == round(new / 4)
    seen = words_seen(prepared_data, 4 * new)
    assert seen["gamma"] == pytest.approx(0.25, abs=0.08 if packing else 0.01)
    assert seen["alpha"] == pytest.approx(3 * seen["beta"], rel=0.1), "new rows have equal probability in all sources"


def test_weights_divide_the_share_of_new_rows(tmp_path: Path) -> None:
    prepared_data, _ = prepared(
        tmp_path, OLD_AND_NEW, "MaskedLM", replay=0.5, packing=False, weights={"alpha": 1, "beta": 4, "gamma": 1}
    )
    assert words_seen(prepared_data, 160) == pytest.approx({"alpha": 0.1, "beta": 0.4, "gamma": 0.5}, abs=0.01)


def test_balances_labels_within_the_share_of_new_rows(tmp_path: Path) -> None:
    sources = {name: [row | {"label": name} for row in rows] for name, rows in OLD_AND_NEW.items()}
    prepared_data, _ = prepared(tmp_path, sources, "SequenceClassification", replay=0.5, resample="Balanced")
    assert words_seen(prepared_data, 160) == pytest.approx({"alpha": 0.25, "beta": 0.25, "gamma": 0.5}, abs=0.01)
    assert len({int(row[TARGET][0]) for row in prepared_data.train}) == 3, "labels of replayed rows are included"


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_split_replayed_rows(tmp_path: Path, size: int) -> None:
    prepared_data, spec = prepared(tmp_path, OLD_AND_NEW, "CausalLM", replay=0.25, packing=False)
    sampler, objective = Sampler(prepared_data.epoch, 12, 0, prepared_data.mixture), objectives.from_spec(spec, TOKENIZER)

    def shown(ranks: int) -> list[list[int]]:
        """The tokens of each step's rows, at this number of ranks."""
        builders = [BatchBuilder(prepared_data.train, objective.collator, Layout(), rank, ranks, 2, 0) for rank in range(ranks)]
        steps = []
        for step in range(40):
            batches = [batch for build in builders for batch in build(sampler.indices_for_step(step))]
            steps.append(sorted(row.tolist() for batch in batches for row in batch.batch.inputs[TOKENS]))
        return steps

    assert shown(size) == shown(1)


def test_checks_replay_rows_and_keeps_those_that_repeat_new_ones(tmp_path: Path) -> None:
    sources = {
        "alpha": [*numbered("alpha", 20), {"text": "gamma 1"}],
        "gamma": [*numbered("gamma", 10), {"text": "gamma 2"}, {"text": "alpha 3"}],
    }
    (tmp_path / "held.jsonl").write_text('{"text": "gamma 0"}')
    prepared_data, _ = prepared(
        tmp_path, sources, "MaskedLM", replay=0.2, packing=False, evaluation=[{"source": f"file://{tmp_path}/held.jsonl"}],
        checks={"duplicates": "Drop", "leakage": "Drop"},
    )  # fmt: skip
    assert [finding.sentence.partition(": ")[0] for finding in prepared_data.report.findings] == [
        "1 of 12 replay rows (8.3 %) with texts of the evaluation data",
        "1 of 12 replay rows (8.3 %) that repeat an earlier one",
    ]
    assert (prepared_data.epoch, len(prepared_data.train)) == (21, 31)
    assert any(line.startswith("data, replay: 10 rows of data became 10 sequences") for line in prepared_data.report.lines())


def test_another_replay_share_reuses_the_prepared_rows(tmp_path: Path) -> None:
    sources = {"alpha": numbered("alpha", 30), "gamma": numbered("gamma", 30)}
    few, _ = prepared(tmp_path, sources, "MaskedLM", replay=0.1)
    many, _ = prepared(tmp_path, sources, "MaskedLM", replay=0.9)
    assert few.mixture is not None
    assert many.mixture is not None
    assert few.mixture.shares == pytest.approx(many.mixture.shares[::-1])
    assert len([path for path in (tmp_path / "cache/prepared").iterdir() if path.is_dir()]) == 1
    plain, _ = prepared(tmp_path, sources, "MaskedLM")
    assert plain.report.replay is None


def test_rejects_replay_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^spec.data.replay: nothing is left to replay \(of 1 documents 1 are empty"):
        prepared(tmp_path, {"alpha": numbered("alpha", 5), "beta": [{"text": ""}]}, "MaskedLM", replay=0.1)


@pytest.mark.slow
def test_learns_a_rare_label_with_balanced_labels(tmp_path: Path) -> None:
    """Nine of ten functions are from one package; a model that always predicts it has a mean recall of one half."""
    counts = {"asyncio": 450, "unittest": 50}
    rows = [{"text": text, "label": name} for name, most in counts.items() for _, text in corpora.functions(name)[:most]]
    kind = {"type": "SequenceClassification"}
    steps = {"maxSteps": 40}
    plain = learn(tmp_path / "plain", rows, objective=kind, training=steps)
    resampled = learn(tmp_path / "resampled", rows, objective=kind, training=steps, data={"resample": "Balanced"})
    weighed = learn(
        tmp_path / "weighed", rows, training={"maxSteps": 80},
        objective=kind | {"sequenceClassification": {"classWeighting": "Balanced"}},
    )  # fmt: skip
    assert plain.after["recall"] < 0.55
    assert weighed.before["recall"] == resampled.before["recall"] == 0.5
    assert min(weighed.after["recall"], resampled.after["recall"]) > 0.65
