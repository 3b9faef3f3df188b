"""Splits in the names of folders and files, and files that are no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.reading import read_rows, read_texts, resolve, write

from finetune_trainer.protocol.outcome import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths."""
    monkeypatch.chdir(tmp_path)


def labels(source: str, **settings: Any) -> list[tuple[str, str]]:
    rows = read_rows(source, "ImageClassification", **settings)
    return [(row.values["label"], row.origin) for row in rows]


def test_folders_of_splits_are_no_classes() -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "Test/dog/4.png"):
        write(f"pets/{name}", b"x")
    assert labels("pets") == [("cat", "pets/train/cat/1.png"), ("dog", "pets/train/dog/2.png")]
    assert labels("pets", split="dev") == [("cat", "pets/val/cat/3.png")]
    assert labels("pets", default_split="validation") == [("cat", "pets/val/cat/3.png")]
    assert labels("pets", split="test") == [("dog", "pets/Test/dog/4.png")]
    [first, _] = read_rows("pets", "ImageClassification")
    assert first.folder is not None
    assert (first.folder / first.values["image"]).is_file()
    assert resolve("pets", "ImageClassification").describe().notes == (
        "The files of the split train are read, not those of test, validation.",
    )


def test_one_folder_of_a_split_is_no_class() -> None:
    for name in ("train/cat/1.png", "train/dog/2.png"):
        write(f"pets/{name}", b"x")
    assert [label for label, _ in labels("pets")] == ["cat", "dog"]


def test_classes_may_be_named_like_splits() -> None:
    for name in ("train/1.png", "bus/2.png", "test/3.png"):
        write(f"vehicles/{name}", b"x")
    assert [label for label, _ in labels("vehicles")] == ["bus", "test", "train"]


def test_refuses_splits_next_to_other_folders() -> None:
    for name in ("train/cat/1.png", "test/cat/2.png", "misc/3.png"):
        write(f"pets/{name}", b"x")
    with pytest.raises(DataError) as raised:
        labels("pets")
    assert str(raised.value) == (
        "spec.data.train[0].split: the folder holds splits (test, train) and something else (misc): set split, or name one "
        "of them in source"
    )
    assert [label for label, _ in labels("pets", split="train")] == ["cat"]


@pytest.mark.parametrize(
    ("names", "settings", "read"),
    [
        (["train.txt", "valid.txt", "test.txt"], {}, ["train.txt"]),
        (["train.txt", "valid.txt", "test.txt"], {"default_split": "validation"}, ["valid.txt"]),
        (
            ["data/train-00000-of-00002.txt", "data/train-00001-of-00002.txt", "data/test-0.txt"],
            {"split": "test"},
            ["data/test-0.txt"],
        ),
        (["my-train.txt", "my_dev.txt"], {}, ["my-train.txt"]),
        (["wiki.train.txt", "wiki.valid.txt"], {}, ["wiki.train.txt"]),
        (["train/a.txt", "eval/a.txt"], {}, ["train/a.txt"]),
        (["train/a.txt", "train/b.txt"], {}, ["train/a.txt", "train/b.txt"]),
        (["test/a.txt", "test/b.txt"], {}, ["test/a.txt", "test/b.txt"]),
        (["train.txt", "test.txt", "notes.txt"], {}, ["notes.txt", "test.txt", "train.txt"]),
        (["training-day.txt", "contest.txt"], {}, ["contest.txt", "training-day.txt"]),
    ],
)
def test_reads_one_split_of_a_folder_whose_files_all_belong_to_splits(
    names: list[str], settings: dict[str, Any], read: list[str]
) -> None:
    for name in names:
        write(f"texts/{name}", "x")
    assert [origin.removeprefix("texts/") for _, origin in read_texts("texts", **settings)] == read


def test_a_pattern_reads_all_files_that_it_matches() -> None:
    write("texts/train.txt", "x")
    write("texts/test.txt", "y")
    assert [text for text, _ in read_texts("texts/*.txt")] == ["y", "x"]
    assert [text for text, _ in read_texts("texts/*.txt", split="train")] == ["x"]


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (
            ["train.txt", "test.txt"],
            {"split": "dev"},
            "there is no split dev (the files are of test, train): correct or",
        ),
        (["valid.txt", "test.txt"], {}, "there is no split train (the files are of test, validation): set split"),
        (["a.txt"], {"split": "train"}, "there is no split train (no folder or file is named like a split): correct or remove"),
    ],
)
def test_rejects_splits_that_do_not_exist(names: list[str], settings: dict[str, Any], message: str) -> None:
    for name in names:
        write(f"texts/{name}", "x")
    with pytest.raises(DataError) as raised:
        read_texts("texts", **settings)
    assert str(raised.value).startswith(f"spec.data.train[0].split: {message}")


def test_tables_of_splits_are_not_mixed_with_other_tables() -> None:
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        write(f"kaggle/{name}", f"text\n{name}\n")
    with pytest.raises(DataError, match=r"holds splits \(test, train\) and something else \(sample_submission.csv\)"):
        read_texts("kaggle")
    assert [text for text, _ in read_texts("kaggle", split="train")] == ["train.csv"]


def test_says_which_files_are_not_read() -> None:
    for name in ("a.txt", "b.docx", "c/d.heic", ".hidden.pdf"):
        write(f"texts/{name}", "x")
    assert resolve("texts").describe().notes == ("2 files are not read because of the suffix, such as b.docx.",)


def test_documentation_next_to_tables_is_not_read() -> None:
    write("data/README.md", "# About")
    write("data/LICENSE.txt", "MIT")
    write("data/a.jsonl", '{"text": "a"}')
    assert [text for text, _ in read_texts("data")] == ["a"]
    assert resolve("data").describe().notes == ("LICENSE.txt, README.md are not data and not read.",)
    write("texts/README.md", "# About")
    write("texts/a.py", "a")
    assert len(read_texts("texts")) == 2
