"""Data is prepared once a machine, into the same sequences on every machine."""

from __future__ import annotations

import json
import multiprocessing
import sysconfig
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import ranks, tiny, training

from finetune_trainer import config
from finetune_trainer.data.checks.report import DataReport
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset, document_lengths
from finetune_trainer.data.preprocessing import prepare as module
from finetune_trainer.data.preprocessing.consistency import validate_same_rows
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials

LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGE = f"file://{LIBRARY}/json"


@cache
def tokenizer() -> Any:
    return tokenizer_training.train_tokenizer([file.read_text() for file in sorted((LIBRARY / "json").glob("*.py"))], 600)


def prepared_by(cache: Path, trained: Any = None, **settings: Any) -> Prepared:
    data = {"train": [{"source": PACKAGE}], **settings}
    spec = config.TrainSpec.model_validate(tiny.spec().document() | {"data": data})
    return prepare(
        spec,
        CausalLM.from_spec(spec, trained or tokenizer()).encoder,
        SourceResolver(config.ObjectiveSpec(), cache, Credentials()),
    )


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Prepared]:
    def prepared(*texts: str, folder: str = "cache", **settings: Any) -> Prepared:
        if texts:
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (tmp_path / "data.jsonl").write_text(lines)
            settings["train"] = [{"source": f"file://{tmp_path}/data.jsonl"}]
        return prepared_by(tmp_path / folder, **settings)

    return prepared


def documents(rows: ArrowDataset) -> list[list[int]]:
    return [piece.tolist() for row in rows for piece in np.split(row[TOKENS], np.cumsum(document_lengths(row))[:-1])]


def texts(rows: ArrowDataset) -> list[str]:
    return [tokenizer().decode(piece, skip_special_tokens=True) for piece in documents(rows)]


@pytest.mark.parametrize("packing", [True, False])
def test_keeps_every_token(make: Callable[..., Prepared], packing: bool) -> None:
    given = [f"def f{i}():\n    return {i * i} + {'x' * (i % 50)}\n" for i in range(200)]
    prepared = make(*given, maxLength=128, packing=packing)
    rows, report = prepared.train, prepared.report.train
    assert Counter(texts(rows)) == Counter(given)
    assert all(piece[-1] == tokenizer().eos_token_id for piece in documents(rows))
    assert max(len(row[TOKENS]) for row in rows) <= 128
    assert prepared.evaluation is None
    assert (report.documents, report.rows, report.tokens) == (200, len(rows), sum(len(row[TOKENS]) for row in rows))
    assert len(rows) == 200 if not packing else len(rows) < 120
    assert report.padding_share < 0.02 if packing else report.padding_share > 0.3


def test_packs_split_documents(make: Callable[..., Prepared]) -> None:
    prepared = make(maxLength=256)
    whole = make(maxLength=100_000, packing=False, folder="whole")
    assert prepared.report.train.split_documents == len(whole.train)
    assert prepared.report.train.documents - prepared.report.train.empty_documents == len(whole.train)
    predicted = sum(len(piece) - 1 for piece in documents(prepared.train))
    assert predicted == sum(len(piece) - 1 for piece in documents(whole.train))
    assert prepared.report.train.padding_share < 0.1


@pytest.mark.parametrize(
    ("overlong", "expected"),
    [("Split", ("split_documents", 1)), ("Truncate", ("truncated_documents", 1)), ("Drop", ("dropped_documents", 1))],
)
def test_report_counts_documents(make: Callable[..., Prepared], overlong: str, expected: tuple[str, int]) -> None:
    report = make("short", "", "long " * 50, "", maxLength=16, overlong=overlong).report.train
    assert (report.documents, report.empty_documents, getattr(report, expected[0])) == (4, 2, expected[1])
    assert report.longest_row <= 16


def test_holds_out_documents_by_their_text(make: Callable[..., Prepared]) -> None:
    given = [f"document {i}" for i in range(300)]
    first = make(*given, *given, evaluationFraction=0.2)
    other = make(*reversed(given), "one more", evaluationFraction=0.2, folder="other")
    assert first.evaluation is not None
    assert other.evaluation is not None
    train, held_out = set(texts(first.train)), set(texts(first.evaluation))
    assert train | held_out == set(given)
    assert not train & held_out
    assert 30 < len(held_out) < 90
    assert set(texts(other.evaluation)) - {"one more"} == held_out


def test_prepares_separate_evaluation_data(make: Callable[..., Prepared], tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("held out")
    prepared = make("a", "b", evaluation=[{"source": f"file://{tmp_path}/held.txt"}])
    assert prepared.evaluation is not None
    assert prepared.report.evaluation is not None
    assert texts(prepared.evaluation) == ["held out"]
    assert prepared.report.evaluation.documents == 1


def test_preparation_is_deterministic(make: Callable[..., Prepared]) -> None:
    here, there = (make(maxLength=64, folder=folder) for folder in ("here", "there"))
    assert here.report == there.report
    assert all(np.array_equal(a[TOKENS], b[TOKENS]) for a, b in zip(here.train, there.train, strict=True))
    assert make(maxLength=65).report.train.digest != here.report.train.digest


def compare_reports(place: ranks.Place, reports: list[DataReport]) -> str:
    with training.joined(place) as here:
        try:
            validate_same_rows(reports[here.rank], here)
        except DataError as error:
            return str(error)
        return ""


def test_names_ranks_with_different_rows(make: Callable[..., Prepared]) -> None:
    first, second = (make(*texts, folder=texts[0]).report for texts in (("a", "b"), ("b", "a")))
    assert ranks.run(compare_reports, 2, [first, first]) == ["", ""]
    [sentence, same] = ranks.run(compare_reports, 2, [first, second])
    assert sentence == same
    assert sentence.startswith("spec.data: rank 1 prepared other rows than rank 0")


def test_reuses_prepared_rows(make: Callable[..., Prepared], tmp_path: Path) -> None:
    given = ["one", "two"]
    make(*given)
    (folder,) = (path for path in (tmp_path / "cache" / "prepared").iterdir() if path.is_dir())
    inode = (folder / "train.arrow").stat().st_ino
    prepared_by(tmp_path / "cache", train=[{"source": f"file://{tmp_path}/data.jsonl"}])
    assert (folder / "train.arrow").stat().st_ino == inode
    assert texts(make(*given, "three").train) != given


def test_concurrent_processes_prepare_once(tmp_path: Path) -> None:
    """One process prepares, the other waits; both get the same rows, and no temporary folder remains."""
    forks = multiprocessing.get_context("fork")  # each process then has torch imported already
    messages: Any = forks.Queue()
    start = forks.Barrier(2)

    def prepare_and_report() -> None:
        run = module._Preparation.run
        module._Preparation.run = lambda *args: (messages.put("works"), run(*args))[1]
        start.wait(60)
        messages.put(prepared_by(tmp_path, maxLength=128).report.train.digest)

    tokenizer()
    processes = [forks.Process(target=prepare_and_report) for _ in range(2)]
    for process in processes:
        process.start()
    received = [messages.get(timeout=120) for _ in range(3)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert received.count("works") == 1
    assert len(set(received)) == 2
    assert sorted(path.suffix for path in (tmp_path / "prepared").iterdir()) == ["", ".lock"]


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (
            ["", ""],
            {},
            "spec.data.train: nothing is left to learn from (of 2 documents 2 are empty and 0 longer than maxLength",
        ),
        (
            ["x" * 99],
            {"maxLength": 8, "overlong": "Drop"},
            "spec.data.train: nothing is left to learn from (of 1 documents 0 are",
        ),
        (["one"], {"evaluationFraction": 1e-9}, "spec.data.evaluationFraction: 1e-09 of 1 documents held out none that could"),
    ],
)
def test_rejects_data_without_usable_documents(
    make: Callable[..., Prepared], given: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as raised:
        make(*given, **settings)
    assert str(raised.value).startswith(message)


def test_removes_partial_results_after_an_error(make: Callable[..., Prepared], tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{')
    with pytest.raises(DataError, match=r"bad.jsonl:2: not valid JSON"):
        make(train=[{"source": f"file://{tmp_path}/bad.jsonl"}])
    assert [path.suffix for path in (tmp_path / "cache" / "prepared").iterdir()] == [".lock"]


def test_requires_an_end_of_text_token(tmp_path: Path) -> None:
    endless = tokenizer_training.train_tokenizer(["some text"], 300)
    endless.eos_token = None
    with pytest.raises(ConfigurationError, match=r"^spec.model.tokenizer: it has no end-of-text token"):
        prepared_by(tmp_path, trained=endless)


def test_calls_the_heartbeat(tmp_path: Path) -> None:
    calls: list[int] = []
    with heartbeat.relayed_to(lambda: calls.append(1)):
        prepared_by(tmp_path)
    assert calls
