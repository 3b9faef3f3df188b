"""Findings of the data checks in real files, and their policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny

from finetune_trainer import config, objectives
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.records import roles
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import tokenizer_training
from finetune_trainer.models.tokenizer_training import training_corpus
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials

LONG = " ".join(f"word{number}" for number in range(120))
TOKENIZER = tokenizer_training.train_tokenizer([LONG, "[EMAIL] " * 3], 400, adds_special_tokens=True)
Make = Callable[..., Prepared]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Prepares training rows and optional evaluation rows, each a text or a pair of text and label."""

    def prepared(train: list[Any], evaluation: list[Any] | None = None, **data: Any) -> Prepared:
        splits = {"train": train} | ({"evaluation": evaluation} if evaluation else {})
        labeled = isinstance(train[0], tuple)
        for split, rows in splits.items():
            named = [{"text": row[0], "label": row[1]} if labeled else {"text": row} for row in rows]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
            data[split] = [{"source": f"file://{tmp_path}/{split}.jsonl"}]
        objective = {"type": "SequenceClassification" if labeled else "MaskedLM"}
        document = tiny.spec().document() | {"objective": objective, "data": {"maxLength": 1024, "packing": False} | data}
        spec = config.TrainSpec.model_validate(document)
        return prepare(
            spec,
            objectives.from_spec(spec, TOKENIZER).encoder,
            SourceResolver(spec.objective, tmp_path / "cache", Credentials()),
        )

    return prepared


def texts(rows: ArrowDataset | None) -> list[str]:
    return [TOKENIZER.decode(row[TOKENS], skip_special_tokens=True) for row in rows or ()]


def sentences(prepared: Prepared) -> list[str]:
    return [finding.sentence.replace(finding.first.rpartition("/")[0] + "/", "") for finding in prepared.report.findings]


SIMILAR = LONG.replace("word60", "another")
TRAIN = ["one", "two", "one", LONG, SIMILAR, "held out", "me@example.org"]
EVALUATION = ["held out", "three", "three", "you@example.org"]


def test_reports_all_findings_and_keeps_all_rows_by_default(make: Make) -> None:
    prepared = make(TRAIN, EVALUATION)
    assert texts(prepared.train) == TRAIN
    assert texts(prepared.evaluation) == EVALUATION
    assert sentences(prepared) == [
        "1 of 7 training rows (14.3 %) with texts of the evaluation data: the first is train.jsonl:6",
        "1 of 7 training rows (14.3 %) with personal data: 1 EMAIL; the first is train.jsonl:7",
        "1 of 4 evaluation rows (25.0 %) with personal data: 1 EMAIL; the first is evaluation.jsonl:4",
        "1 of 7 training rows (14.3 %) that repeat an earlier one: the first is train.jsonl:3",
        "1 of 4 evaluation rows (25.0 %) that repeat an earlier one: the first is evaluation.jsonl:3",
        "1 of 7 training rows (14.3 %) that nearly repeat an earlier one: the first is train.jsonl:5",
    ]
    assert prepared.report.train.compared == 7


@pytest.mark.parametrize(
    ("check", "policy", "dropped"),
    [
        ("duplicates", "Drop", [2]),
        ("nearDuplicates", "Drop", [4]),
        ("leakage", "Drop", [5]),
        ("personalData", "Drop", [6]),
        ("duplicates", "Ignore", []),
        ("leakage", "Ignore", []),
    ],
)
def test_drops_rows_or_ignores_a_check(make: Make, check: str, policy: str, dropped: list[int]) -> None:
    prepared = make(TRAIN, EVALUATION, checks={check: policy})
    assert texts(prepared.train) == [text for index, text in enumerate(TRAIN) if index not in dropped]
    assert texts(prepared.evaluation) == (EVALUATION[:3] if check == "personalData" else EVALUATION)
    own = [finding for finding in prepared.report.findings if finding.check == check]
    assert [finding.done for finding in own] == (["dropped"] * (2 if check == "personalData" else 1) if dropped else [])
    assert prepared.report.findings[: -len(own) or None] == [other for other in prepared.report.findings if other not in own]


def test_similar_texts_leak(make: Make) -> None:
    assert texts(make(["one", SIMILAR], [LONG], checks={"leakage": "Drop"}).train) == ["one"]
    assert texts(make(["one", SIMILAR], [LONG], checks={"leakage": "Drop", "comparedRows": 0}).train) == ["one", SIMILAR]


def test_drops_training_rows_that_leak_into_held_out_rows(make: Make) -> None:
    similar = [LONG.replace("word60", f"other{number}") for number in range(40)]
    others = [f"something else {number}" for number in range(5)]
    prepared = make([*similar, *others], evaluationFraction=0.3, checks={"leakage": "Drop"})
    assert set(texts(prepared.train)) | set(texts(prepared.evaluation)) >= set(others)
    assert texts(prepared.train)
    assert not set(texts(prepared.train)) & set(similar)
    assert 0 < len(set(texts(prepared.evaluation)) & set(similar)) < 40


def test_scrubs_personal_data_in_all_splits(make: Make) -> None:
    prepared = make(TRAIN, EVALUATION, checks={"personalData": "Scrub"})
    assert texts(prepared.train) == [*TRAIN[:-1], "[EMAIL]"]
    assert texts(prepared.evaluation) == [*EVALUATION[:-1], "[EMAIL]"]
    assert [finding.done for finding in prepared.report.findings if finding.check == "personalData"] == ["scrubbed", "scrubbed"]


def test_rejects_scrubbing_of_a_column_that_must_not_change(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_text = roles.Role(roles.ROLES["text"].validate, roles.ROLES["text"].texts)
    monkeypatch.setitem(roles.ROLES, "text", fixed_text)
    with pytest.raises(
        ConfigurationError, match=r"^spec.data.checks.personalData: column text cannot be altered .*train.jsonl:7"
    ):
        make(TRAIN, checks={"personalData": "Scrub"})
    assert len(make(TRAIN[:-1], checks={"personalData": "Scrub"}).train) == 6


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("duplicates", "train.jsonl:3: one of 1 training rows, of 7, that repeat an earlier one: remove them, or"),
        (
            "nearDuplicates",
            "train.jsonl:5: one of 1 training rows, of 7, that nearly repeat an earlier one: remove",
        ),
        ("leakage", "train.jsonl:6: one of 1 training rows, of 7, with texts of the evaluation data: remove them"),
        (
            "personalData",
            "train.jsonl:7: one of 1 training rows, of 7, with personal data (1 EMAIL): remove it, or",
        ),
        ("truncation", "train.jsonl:4: one of 2 training rows, of 7, longer than maxLength: raise data.maxLength"),
        ("unlearnable", "train.jsonl:8: one of 1 training rows, of 8, without anything to learn: fill or remove"),
    ],
)
def test_policy_fail_ends_the_run(make: Make, tmp_path: Path, check: str, message: str) -> None:
    more: dict[str, Any] = {"overlong": "Truncate", "maxLength": 32} if check == "truncation" else {}
    rows = [*TRAIN, ""] if check == "unlearnable" else TRAIN
    with pytest.raises(DataError) as raised:
        make(rows, EVALUATION, checks={check: "Fail"}, **more)
    assert str(raised.value).startswith(f"{tmp_path}/{message}")
    assert [path.suffix for path in (tmp_path / "cache" / "prepared").iterdir()] == [".lock"]


def test_rejects_data_without_rows_after_dropping(make: Make) -> None:
    with pytest.raises(DataError, match=r"nothing is left to learn from \(of 0 documents .*; data.checks.leakage dropped 1\)"):
        make(["held out"], EVALUATION, checks={"leakage": "Drop"})


def test_another_policy_prepares_again(make: Make) -> None:
    assert len(make(TRAIN).train) == 7
    assert len(make(TRAIN, checks={"duplicates": "Drop"}).train) == 6
    assert len(make(TRAIN).train) == 7


def test_report_counts_each_split(make: Make) -> None:
    prepared = make(["a b c", "a b c d", "", LONG], ["a b"], maxLength=64, overlong="Truncate")
    train, evaluation = prepared.report.train, prepared.report.evaluation
    assert evaluation is not None
    tokens = [len(row[TOKENS]) for row in prepared.train]
    assert (train.documents, train.empty_documents, train.truncated_documents, train.examples) == (4, 1, 1, 3)
    assert list(train.lengths.document().values()) == [tokens[0], tokens[1], tokens[2], 64]
    assert (train.tokens, evaluation.rows) == (sum(tokens), 1)
    assert prepared.report.padding_is_end_of_text is False
    lines = list(prepared.report.lines())
    assert [line.split(" ")[1] for line in lines[:2]] == ["data.train[0]", "data.evaluation[0]"]
    assert lines[2].startswith(f"data, train: 4 rows of data became 3 sequences of {sum(tokens)} tokens, lengths {tokens[0]},")
    assert lines[2].endswith("25.0% truncated, 25.0% empty")
    summary = prepared.report.summary
    assert (summary.rows, summary.tokens, summary.truncated_share) == (3, sum(tokens), 0.25)
    assert summary.findings == [finding.sentence[:200] for finding in prepared.report.findings]


def test_reports_label_counts_and_imbalance(make: Make) -> None:
    report = make([(f"text {number}", "rare" if number == 7 else "common") for number in range(40)]).report
    assert report.train.labels == {"common": 39 / 40, "rare": 1 / 40}
    assert report.train.imbalance == 39
    assert report.findings[-1].sentence == (
        "39 of 40 training rows (97.5 %) with the most frequent label: 39 times as many have the label 'common' as 'rare'"
    )
    even = make([(f"text {number}", number % 2) for number in range(40)]).report
    assert (even.train.labels, even.findings) == ({"0": 0.5, "1": 0.5}, [])


def test_folds_hold_out_each_row_once(make: Make) -> None:
    rows = [f"text {number}" for number in range(100)]
    folds = [make(rows, folds={"count": 4, "hold": hold}) for hold in range(4)]
    assert sorted(text for fold in folds for text in texts(fold.evaluation)) == sorted(rows)
    for fold in folds:
        assert sorted(texts(fold.train) + texts(fold.evaluation)) == sorted(rows)
        assert 10 < len(texts(fold.evaluation)) < 45
    with pytest.raises(DataError, match=r"^spec.data.folds: fold \d+ of 100 has none of the 1 documents that could be used"):
        make(["text 1"], folds={"count": 100, "hold": 17})


def test_logs_progress(make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("finetune_trainer.data.progress.REPORT_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        make([f"text {number}" for number in range(1200)])
    lines = [record.getMessage().split(", ")[0] for record in caplog.records]
    checked = [f"data: {number:,} rows checked" for number in range(1, 1201)]
    encoded = ["data: 1,000 of 1,200 rows encoded (83%)", "data: 1,200 of 1,200 rows encoded (100%)"]
    assert lines == checked + encoded


def test_tokenizer_corpus_is_scrubbed(make: Make, tmp_path: Path) -> None:
    make(["me@example.org " * 20])
    spec = {"train": [{"source": f"file://{tmp_path}/train.jsonl"}]}
    resolver = SourceResolver(config.ObjectiveSpec(), tmp_path / "cache", Credentials())
    plain, scrubbed = (
        training_corpus(config.DataConfig.model_validate(spec | {"checks": checks}), resolver)
        for checks in ({}, {"personalData": "Scrub"})
    )
    assert (list(plain()), list(scrubbed())) == (["me@example.org " * 20], ["[EMAIL] " * 20])
    assert plain.identity != scrubbed.identity
