"""Parquet, Arrow, Feather and saved datasets, with the features of the hub."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from tests.support.reading import read_rows, read_texts, resolve

from finetune_trainer.data.sources.formats.hub_features import class_name_decoders
from finetune_trainer.protocol.outcome import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths."""
    monkeypatch.chdir(tmp_path)


def write_stream(table: pa.Table, name: str) -> None:
    with pa.OSFile(name, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_file(table: pa.Table, name: str) -> None:
    with pa.OSFile(name, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_gzip(table: pa.Table, name: str) -> None:
    pq.write_table(table, "plain.parquet")
    Path(name).write_bytes(gzip.compress(Path("plain.parquet").read_bytes()))


WRITERS: list[tuple[str, Callable[[pa.Table, str], None]]] = [
    ("a.parquet", pq.write_table),
    ("a.PQ", pq.write_table),
    ("a.parquet.gz", write_gzip),
    ("stream.arrow", write_stream),
    ("file.arrow", write_file),
    ("a.feather", pyarrow.feather.write_feather),
]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_reads_arrow_tables_of_all_kinds(name: str, write: Callable[[pa.Table, str], None]) -> None:
    write(pa.table({"n": [1, 2, 3], "text": ["a", "b", "c"]}), name)
    assert read_texts(name) == [("a", f"{name}:1"), ("b", f"{name}:2"), ("c", f"{name}:3")]


FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "Sequence"},
    "info": {"kind": {"names": ["x", "y"], "_type": "ClassLabel"}, "n": {"dtype": "int64", "_type": "Value"}},
    "spans": {"feature": {"type": {"names": ["p", "q"], "_type": "ClassLabel"}}, "_type": "Sequence"},
    "old": [{"type": {"names": ["p", "q"], "_type": "ClassLabel"}}],
}


def hub_table(values: dict[str, Any]) -> pa.Table:
    return pa.table(values).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})


@pytest.mark.parametrize(("name", "write"), WRITERS[:1] + WRITERS[3:5])
def test_replaces_class_numbers_with_the_names_in_the_schema(name: str, write: Callable[[pa.Table, str], None]) -> None:
    write(hub_table({"text": ["a", "b", "c", "d"], "label": [1, 0, -1, None]}), name)
    rows = resolve(name, "SequenceClassification").rows()
    labels = [next(rows).values["label"] for _ in range(3)]
    assert labels == ["dog", "cat", -1]


def test_reads_images_with_their_class_names() -> None:
    picture = {"bytes": b"png", "path": "a.png"}
    pq.write_table(hub_table({"image": [picture, picture], "label": [0, 1]}), "a.parquet")
    rows = read_rows("a.parquet", "ImageClassification")
    assert [(row.values["image"], row.values["label"]) for row in rows] == [(picture, "cat"), (picture, "dog")]


@pytest.mark.parametrize(
    ("column", "value", "decoded"),
    [
        ("tags", [1, 0], ["B-PER", "O"]),
        ("info", {"kind": 1, "n": 1}, {"kind": "y", "n": 1}),
        ("spans", {"type": [0, 1]}, {"type": ["p", "q"]}),
        ("spans", [{"type": 0}, {"type": 1}], [{"type": "p"}, {"type": "q"}]),
        ("old", [{"type": 1}, None], [{"type": "q"}, None]),
        ("tags", None, None),
    ],
)
def test_finds_class_numbers_inside_lists_and_objects(column: str, value: Any, decoded: Any) -> None:
    assert class_name_decoders(FEATURES)[column](value) == decoded


def test_columns_without_class_names_stay_as_they_are() -> None:
    assert class_name_decoders({"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "num_classes": 2}}) == {}


def test_reads_paths_into_structs_and_only_the_columns_that_they_need() -> None:
    table = pa.table({
        "translation": [{"en": "cat", "de": "Katze"}],
        "answers": [[{"text": "one"}]],
        "when": [datetime.datetime(2026, 1, 1)],
    })  # fmt: skip
    pq.write_table(table, "a.parquet")
    columns = {"text": "translation.en", "target": "{translation.de}: {answers[0].text}"}
    [row] = read_rows("a.parquet", "Seq2Seq", columns=columns)
    assert row.values == {"text": "cat", "target": "Katze: one"}


def test_reads_decimals_as_numbers() -> None:
    exact = pa.array([Decimal("1.50"), Decimal("2.25")], pa.decimal128(5, 2))
    whole = pa.array([Decimal(3), Decimal(4)], pa.decimal128(5, 0))
    pq.write_table(pa.table({"text": ["a", "b"], "score": exact, "stars": whole}), "a.parquet")
    scores = [row.values["label"] for row in read_rows("a.parquet", "SequenceClassification", columns={"label": "score"})]
    stars = [row.values["label"] for row in read_rows("a.parquet", "SequenceClassification", columns={"label": "stars"})]
    assert (scores, stars) == ([1.5, 2.25], [3, 4])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            pa.table([["a"], ["b"]], names=["text", "text"]),
            "a.parquet: several columns are named text: give each a name of its own",
        ),
        (
            pa.table({"text": [datetime.datetime(2026, 1, 1)]}),
            "a.parquet: column text holds values of the type timestamp[us]: write them as text, numbers or objects",
        ),
        (pa.table({"text": [b"a"]}), "a.parquet:1: column text is a bytes, not a string"),
    ],
)
def test_rejects_tables_that_would_be_misread(table: pa.Table, message: str) -> None:
    pq.write_table(table, "a.parquet")
    with pytest.raises(DataError) as raised:
        read_rows("a.parquet")
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("content", [b"ARROW1 and nothing more", b"FEA1", b"", b"text"])
def test_rejects_other_arrow_files(content: bytes) -> None:
    Path("a.arrow").write_bytes(content)
    with pytest.raises(DataError, match=r"^a\.arrow: not a readable Arrow file \(.+\): write it again$"):
        read_rows("a.arrow")


def test_reads_a_split_of_a_dataset_that_was_saved_to_disk() -> None:
    import datasets  # takes seconds

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    splits = {"train": {"text": ["a", "b"], "label": [1, 0]}, "test": {"text": ["c"], "label": [1]}}
    saved = {name: datasets.Dataset.from_dict(values, features) for name, values in splits.items()}
    datasets.DatasetDict(saved).save_to_disk("saved")
    Path("saved/train/cache-0123456789abcdef.arrow").write_bytes(b"a cache of map()")

    def read(source: str, **settings: Any) -> list[tuple[str, str]]:
        rows = read_rows(source, "SequenceClassification", **settings)
        return [(row.values["text"], row.values["label"]) for row in rows]

    assert read("saved") == read("saved/train") == [("a", "yes"), ("b", "no")]
    assert read("saved", split="test") == [("c", "yes")]
    assert resolve("saved").describe().notes == (
        "dataset_dict.json, test/dataset_info.json, test/state.json, train/cache-0123456789abcdef.arrow, "
        "train/dataset_info.json, train/state.json are not data and not read.",
        "The files of the split train are read, not those of test.",
    )
