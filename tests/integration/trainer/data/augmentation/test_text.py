"""Text augmentation: shares of changed words, copies of training rows only, and determinism."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support import corpora, tiny
from tests.support.learning import learn

from finetune_trainer import config, objectives
from finetune_trainer.data.augmentation.text import Augmenter
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import tokenizer_training
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials

WORDS = [f"word{number}" for number in range(1000)]
TEXT = " ".join(WORDS)


def augmented(text: str, synonyms: dict[str, list[str]] | None = None, row: int = 0, **options: Any) -> str:
    if synonyms is not None:
        options["synonyms"] = {"source": "file:///words.json", "share": options.pop("share", 1.0)}
    return Augmenter(config.AugmentationConfig.model_validate(options), synonyms or {}, 1).alter(
        text, sample_generator(1, 0, row)
    )


def test_deletes_words() -> None:
    remaining = augmented(TEXT, deletion=0.2).split()
    assert 750 < len(remaining) < 850
    assert remaining == [word for word in WORDS if word in set(remaining)], "in the original order"
    assert len(augmented("only", deletion=0.9).split()) == 1


def test_swaps_words() -> None:
    swapped = augmented(TEXT, swap=0.1).split()
    assert sorted(swapped) == sorted(WORDS)
    assert 100 < sum(one != other for one, other in zip(swapped, WORDS, strict=True)) < 260


def test_synonyms_keep_capitals_and_punctuation() -> None:
    synonyms = {"good": ["fine"], "big": ["large", "great"]}
    assert augmented("Good, (good)\n  dogs GOOD!", synonyms) == "Fine, (fine)\n  dogs Fine!"
    assert Counter(augmented("big " * 400, synonyms, share=0.5).split()).keys() == {"big", "large", "great"}
    assert 150 < augmented("big " * 400, synonyms, share=0.5).split().count("big") < 250


def test_adds_noise_to_letters() -> None:
    noisy = augmented(TEXT, noise=0.1).split()
    assert len(noisy) == len(WORDS)
    changed = sum(one != other for one, other in zip(noisy, WORDS, strict=True))
    assert 300 < changed < 700, "a tenth of about seven letters a word"


def test_keeps_whitespace() -> None:
    assert augmented(" a\n\tb  c ", noise=0.0, swap=1e-9) == " a\n\tb  c "
    assert augmented("  \n", deletion=0.5) == "  \n"


def prepared(folder: Path, rows: list[str], words: Any = None, cache: str = "cache", seed: int = 1, **options: Any) -> Prepared:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    if words is not None:
        (folder / "words.json").write_text(words if isinstance(words, str) else json.dumps(words))
        options["synonyms"] = {"source": f"file://{folder}/words.json", "share": 0.5}
    document = tiny.spec(training={"seed": seed}).document() | {
        "objective": {"type": "MaskedLM"},
        "data": {
            "train": [{"source": f"file://{folder}/rows.jsonl"}], "packing": False, "evaluationFraction": 0.2,
            "augmentation": options,
        },
    }  # fmt: skip
    spec = config.TrainSpec.model_validate(document)
    return prepare(
        spec, objectives.from_spec(spec, TOKENIZER).encoder, SourceResolver(spec.objective, folder / cache, Credentials())
    )


TOKENIZER = tokenizer_training.train_tokenizer([TEXT], 400, adds_special_tokens=True)
ROWS = [f"a row of words with the number {number}" for number in range(50)]


def texts(rows: ArrowDataset | None) -> list[str]:
    return [TOKENIZER.decode(row[TOKENS], skip_special_tokens=True) for row in rows or ()]


def test_copies_follow_their_training_rows(tmp_path: Path) -> None:
    given = prepared(tmp_path, ROWS, {"row": ["line", "record"]}, copies=2)
    train, evaluation = texts(given.train), texts(given.evaluation)
    assert set(evaluation) < set(ROWS)
    assert train[::3] == [row for row in ROWS if row not in evaluation]
    copies = train[1::3] + train[2::3]
    assert {copy.split()[1] for copy in copies} == {"row", "line", "record"}
    assert [copy.split()[-1] for copy in train[1::3]] == [row.split()[-1] for row in train[::3]]
    assert (given.report.train.documents, given.report.train.examples) == (len(train) // 3, len(train))


def test_copies_depend_on_seed_and_synonyms_only(tmp_path: Path) -> None:
    here = texts(prepared(tmp_path, ROWS, {"row": ["line"]}).train)
    assert texts(prepared(tmp_path, ROWS, {"row": ["line"]}, cache="other").train) == here
    assert texts(prepared(tmp_path, ROWS, {"row": ["line"]}, seed=2).train) != here
    assert texts(prepared(tmp_path, ROWS, {"row": ["record"]}).train) != here


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{", "words.json: not readable as JSON (Expecting property name"),
        ([], "words.json: a JSON list and not an object: write words and lists of words"),
        ({"a": "b"}, "words.json: 'a' has 'b' and not a list of words: correct or remove it"),
        ({"a": ["b", 3]}, "words.json: 'a' has ['b', 3] and not a list of words: correct or remove it"),
    ],
)
def test_rejects_invalid_synonym_files(tmp_path: Path, words: Any, message: str) -> None:
    with pytest.raises(DataError) as raised:
        prepared(tmp_path, ROWS, words)
    assert str(raised.value).startswith(f"{tmp_path}/{message}")


def test_a_model_learns_with_copies(tmp_path: Path) -> None:
    rows = [row for row in corpora.by_package(100) if row["label"] in ("asyncio", "xml")]
    trained = learn(
        tmp_path, rows, objective={"type": "SequenceClassification"},
        data={"augmentation": {"copies": 2, "swap": 0.1, "deletion": 0.1, "noise": 0.02}, "maxLength": 64},
    )  # fmt: skip
    assert trained.before["accuracy"] < 0.65
    assert trained.after["accuracy"] > 0.75
