"""Sources with weights, and labels that are balanced: what a run sees of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.trainer import corpora, tiny
from tests.trainer.learning import learn

from finetune_trainer import config
from finetune_trainer.data import vocabulary
from finetune_trainer.data.order import Order
from finetune_trainer.data.prepare import Prepared, prepare
from finetune_trainer.data.reading import Reading
from finetune_trainer.data.rows import TOKENS, lengths
from finetune_trainer.objectives import of
from finetune_trainer.outcome import DataError
from finetune_trainer.storage import Credentials

TOKENIZER = vocabulary.learn(["alpha beta gamma " * 3, "0 1 2 3 4 5 6 7 8 9"], 400, framed=True)


def prepared(
    folder: Path, sources: dict[str, list[dict[str, Any]]], objective: str, **data: Any
) -> tuple[Prepared, config.TrainSpec]:
    for name, rows in sources.items() if not (folder / "cache").exists() else ():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    weights = data.pop("weights", None)
    train = [{"source": f"file://{folder}/{name}.jsonl"} | ({"weight": weights[name]} if weights else {}) for name in sources]
    document = tiny.spec().document() | {"objective": {"type": objective}, "data": {"train": train, "maxLength": 64} | data}
    spec = config.TrainSpec.model_validate(document)
    return prepare(spec, of(spec, TOKENIZER), Reading(spec.objective, folder / "cache", Credentials())), spec


def numbered(word: str, count: int) -> list[dict[str, Any]]:
    return [{"text": f"{word} {number}"} for number in range(count)]


def words_seen(given: Prepared, steps: int) -> dict[str, float]:
    """The share of each word among all documents that the steps show."""
    order = Order(len(given.train), 10, 0, given.mixture)
    rows = np.concatenate([order.of_step(step).rows for step in range(steps)])
    seen: dict[str, int] = {}
    for row in rows:
        kept = given.train[int(row)]
        for document in np.split(kept[TOKENS], np.cumsum(lengths(kept))[:-1]):
            word = TOKENIZER.decode(document, skip_special_tokens=True).split()[0]
            seen[word] = seen.get(word, 0) + 1
    return {word: count / sum(seen.values()) for word, count in seen.items()}


@pytest.mark.parametrize("packing", [False, True])
def test_sources_are_seen_by_their_weights(tmp_path: Path, packing: bool) -> None:
    sources = {"alpha": numbered("alpha", 900), "beta": numbered("beta", 50), "gamma": numbered("gamma", 400)}
    given, _ = prepared(
        tmp_path, sources, "MaskedLM", packing=packing, weights={"alpha": 1, "beta": 2, "gamma": 1}, evaluationFraction=0.1
    )
    assert len(given.train) < 200 if packing else len(given.train) > 1150
    seen = words_seen(given, len(given.train) * 4 // 10)
    assert seen == pytest.approx({"alpha": 0.25, "beta": 0.5, "gamma": 0.25}, abs=0.03)
    for index in range(len(given.train) if packing else 0):
        row = given.train[index]
        text = TOKENIZER.decode(row[TOKENS], skip_special_tokens=True)
        assert sum(word in text for word in sources) == 1, "a packed row is of one source"


def test_without_weights_packed_rows_may_mix_sources(tmp_path: Path) -> None:
    sources = {"alpha": numbered("alpha", 5), "beta": numbered("beta", 5)}
    given, _ = prepared(tmp_path, sources, "MaskedLM")
    assert given.mixture is None
    texts = [TOKENIZER.decode(given.train[index][TOKENS]) for index in range(len(given.train))]
    assert any("alpha" in text and "beta" in text for text in texts)


def test_other_weights_find_the_same_rows(tmp_path: Path) -> None:
    sources = {"alpha": numbered("alpha", 30), "beta": numbered("beta", 30)}
    shares = []
    for weights in ({"alpha": 1, "beta": 1}, {"alpha": 1, "beta": 3}):
        given, _ = prepared(tmp_path, sources, "MaskedLM", weights=weights)
        assert given.mixture is not None
        shares.append(given.mixture.shares)
    assert shares == [[1, 1], [1, 3]]
    assert len([path for path in (tmp_path / "cache/prepared").iterdir() if path.is_dir()]) == 1


def test_a_source_without_rows_can_have_no_share(tmp_path: Path) -> None:
    sources = {"alpha": numbered("alpha", 5), "beta": [{"text": ""}]}
    with pytest.raises(DataError, match=r"^spec.data.train\[1\].weight: nothing of file://.*beta.jsonl is left to learn from"):
        prepared(tmp_path, sources, "MaskedLM", weights={"alpha": 1, "beta": 1})


def test_labels_are_balanced(tmp_path: Path) -> None:
    rows = [
        {"text": f"{word} {n}", "label": word}
        for word, count in (("alpha", 85), ("beta", 10), ("gamma", 5))
        for n in range(count)
    ]
    given, _ = prepared(tmp_path, {"rows": rows}, "SequenceClassification", resample="Balanced")
    assert words_seen(given, 30) == pytest.approx({"alpha": 1 / 3, "beta": 1 / 3, "gamma": 1 / 3}, abs=0.01)
    plain, _ = prepared(tmp_path, {"rows": rows}, "SequenceClassification")
    assert words_seen(plain, 30) == pytest.approx({"alpha": 0.85, "beta": 0.1, "gamma": 0.05})


def test_a_rare_label_is_learnt_when_labels_are_balanced(tmp_path: Path) -> None:
    """Nine functions of ten are of one package; the mean of both labels' recall is one half for whoever knows but one."""
    counts = {"asyncio": 450, "unittest": 50}
    rows = [{"text": text, "label": name} for name, most in counts.items() for _, text in corpora.functions(name)[:most]]
    kind = {"type": "SequenceClassification"}
    plain = learn(tmp_path / "plain", rows, objective=kind)
    resampled = learn(tmp_path / "resampled", rows, objective=kind, data={"resample": "Balanced"})
    weighed = learn(
        tmp_path / "weighed", rows, training={"maxSteps": 120},
        objective=kind | {"sequenceClassification": {"classWeighting": "Balanced"}},
    )  # fmt: skip
    assert plain.after["recall"] < 0.55
    assert weighed.before["recall"] == resampled.before["recall"] == 0.5
    assert min(weighed.after["recall"], resampled.after["recall"]) > 0.65
