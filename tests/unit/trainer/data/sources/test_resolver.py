"""Rows of each file format, and the error for each file that cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_trainer import config
from finetune_trainer.data.sources.hub_source import HubSource
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.data.sources.row_source import RowSource
from finetune_trainer.models.tokenizer_training import training_corpus
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.base import Credentials


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths, as in a local run."""
    monkeypatch.chdir(tmp_path)


def resolver(objective: str = "CausalLM") -> SourceResolver:
    return SourceResolver(config.ObjectiveSpec.model_validate({"type": objective}), Path("cache"), Credentials())


def read(source: str, **settings: Any) -> list[tuple[str, str]]:
    dataset = config.DatasetConfig.model_validate({"source": source, **settings})
    rows = resolver().resolve(dataset, "spec.data.train[0].source").rows()
    return [(row.values["text"], row.origin) for row in rows]


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


JSON = b'{"text": "eins"}\n\n{"text": "zw\xc3\xb6lf", "n": 2}'
CSV = b'id,text\n1,"two\nlines"\n2,"a ""quoted"", word"\n'


@pytest.mark.parametrize(
    ("name", "content", "settings", "expected"),
    [
        ("a.jsonl", JSON, {}, [("eins", "a.jsonl:1"), ("zwölf", "a.jsonl:3")]),
        ("a.json", JSON, {}, [("eins", "a.json:1"), ("zwölf", "a.json:3")]),
        ("a.jsonl.gz", gzip.compress(JSON, mtime=0), {}, [("eins", "a.jsonl.gz:1"), ("zwölf", "a.jsonl.gz:3")]),
        ("A.NDJSON", b'\xef\xbb\xbf{"text": ""}\r\n', {}, [("", "A.NDJSON:1")]),
        ("rows.log", b'{"body": "x"}', {"format": "JSONLines", "columns": {"text": "body"}}, [("x", "rows.log:1")]),
        ("a.csv", CSV, {}, [("two\nlines", "a.csv:2"), ('a "quoted", word', "a.csv:4")]),
        ("a.csv.gz", gzip.compress(CSV, mtime=0), {"columns": {"text": "id"}}, [("1", "a.csv.gz:2"), ("2", "a.csv.gz:4")]),
        ("long.csv", b"text\n" + b"x" * 200_000 + b"\n", {}, [("x" * 200_000, "long.csv:2")]),
        ("a.txt", "é\n\nende\n".encode(), {}, [("é\n\nende\n", "a.txt")]),
        ("empty.py", b"", {}, [("", "empty.py")]),
        ("notes", b"hello", {"format": "Text"}, [("hello", "notes")]),
    ],
)
def test_reads_each_format(name: str, content: bytes, settings: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    write(name, content)
    assert read(f"file://{name}", **settings) == expected
    assert read(f"file://{Path.cwd()}/{name}", **settings) == [(text, f"{Path.cwd()}/{origin}") for text, origin in expected]


@pytest.mark.parametrize("strings", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_reads_parquet(strings: pa.DataType) -> None:
    table = pa.table({"n": range(3000), "text": pa.array([f"t{i}" for i in range(3000)], pa.string()).cast(strings)})
    pq.write_table(table, "a.parquet", row_group_size=700)
    expected = read("file://a.parquet")
    assert expected == [(f"t{i}", f"a.parquet:{i + 1}") for i in range(3000)]


INVALID_FILES: list[tuple[str, bytes, dict[str, Any], str]] = [
    (
        "a.jsonl",
        b'{"text": "x"}\n{"text": ',
        {},
        "a.jsonl:2: not valid JSON (Expecting value at column 10): write one complete",
    ),
    ("a.jsonl", b"[1]\n", {}, "a.jsonl:1: a number and not an object: write an object for each row"),
    ("a.jsonl", b'{"b": 1, "a": 2}', {}, "a.jsonl:1: there is no column text (there are: a, b): set columns.text to one"),
    ("a.jsonl", b"{}", {}, "a.jsonl:1: there is no column text (there are: none)"),
    ("a.jsonl", b'\n{"text": 7}', {}, "a.jsonl:2: column text is a int, not a string: correct or remove the row"),
    ("a.jsonl", b'{"text": null}', {}, "a.jsonl:1: column text is null, not a string"),
    ("a.jsonl", b'{"text": "\\ud800"}', {}, "a.jsonl:1: column text holds half of a surrogate pair at character 1"),
    (
        "a.jsonl",
        b'{"text": "x"}\n{"text": "\xff"}',
        {},
        "a.jsonl:2: byte 0xff at column 11 is not UTF-8: set encoding",
    ),
    ("a.jsonl", b"[" * 100_000, {}, "a.jsonl:1: not valid JSON (nested too deeply): correct the document"),
    ("a.jsonl", b"", {}, "a.jsonl: the file is empty: fill it or leave it out"),
    ("a.jsonl.gz", gzip.compress(JSON, mtime=0)[:-9], {}, "a.jsonl.gz:"),
    ("a.jsonl.gz", JSON, {}, "a.jsonl.gz: the file is not compressed with gzip as its name says: remove .gz"),
    ("a.csv", b"", {}, "a.csv: the file is empty"),
    (
        "a.csv",
        b"id,body\n1,x\n",
        {},
        "a.csv:1: there is no column text (there are: body, id; divided by comma)",
    ),
    (
        "a.csv",
        b'text,n\n"two\nlines",1\nx,y,z\n',
        {},
        "a.csv:4: 3 fields under a header of 2: quote fields that hold a comma",
    ),
    ("a.csv", b'text\nx\n"never closed\n', {}, "a.csv:3: not valid CSV (unexpected end of data): write a quote inside"),
    ("a.csv", b"text\n\xe9\n", {}, "a.csv:2: byte 0xe9 at column 1 is not UTF-8"),
    ("a.txt", b"fine\nnot \x80", {}, "a.txt:2: byte 0x80 at column 5 is not UTF-8"),
    ("a.parquet", b"PAR1 nonsense", {}, "a.parquet: not a readable Parquet file"),
    ("a.xlsx", b"x", {}, "a.xlsx: such files are not read: save the table as CSV or Parquet"),
    ("a.zip", b"x", {}, "a.zip: such files are not read: unpack the archive, or compress each file by itself"),
    ("a.bin", b"x", {}, "a.bin: no format has this suffix: set format to one of JSONLines (.jsonl), JSON"),
]


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"), INVALID_FILES, ids=[case[3][:60] for case in INVALID_FILES]
)
def test_rejects_invalid_files(name: str, content: bytes, settings: dict[str, Any], message: str) -> None:
    write(name, content)
    with pytest.raises(DataError) as raised:
        read(f"file://{name}", **settings)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("text", "a.parquet:2: column text is null, not a string"),
        ("n", "a.parquet:1: column n is a int, not a string"),
        ("body", "a.parquet:1: there is no column body (there are: n, text): set columns.text to one of them"),
    ],
)
def test_rejects_invalid_parquet(column: str, message: str) -> None:
    pq.write_table(pa.table({"n": [1, 2], "text": ["a", None]}), "a.parquet")
    with pytest.raises(DataError) as raised:
        read("file://a.parquet", columns={"text": column})
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("source", "settings", "names"),
    [
        ("data", {}, ["data/a.txt", "data/b.jsonl", "data/deep/c.txt"]),
        ("./data", {"format": "Text"}, ["data/a.txt", "data/deep/c.txt"]),
        ("data/*", {}, ["data/a.txt", "data/b.jsonl"]),
        ("data/**/*.txt", {}, ["data/a.txt", "data/deep/c.txt"]),
        ("data/deep/?.txt", {}, ["data/deep/c.txt"]),
        ("data/[ab].*", {}, ["data/a.txt", "data/b.jsonl"]),
    ],
)
def test_reads_folders_and_patterns(source: str, settings: dict[str, Any], names: list[str]) -> None:
    for name in ("data/deep/c.txt", "data/a.txt", "data/.hidden.txt", "data/.cache/d.txt"):
        write(name, name)
    write("data/b.jsonl", '{"text": "b"}')
    assert [origin.partition(":")[0] for _, origin in read(f"file://{source}", **settings)] == names


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file://nowhere.jsonl", "spec.data.train[0].source: file://nowhere.jsonl does not exist: correct the address"),
        ("file://data/*.csv", "spec.data.train[0].source: file://data/*.csv matches no file: correct the pattern"),
        ("file://data", "spec.data.train[0].source: file://data holds no file that ends with .jsonl, .ndjson"),
        ("pvc://claim/x.txt", "spec.data.train[0].source: pvc://claim/x.txt does not exist"),
    ],
)
def test_rejects_addresses_without_files(source: str, message: str) -> None:
    write("data/image.png", "x")
    with pytest.raises(DataError) as raised:
        read(source)
    assert str(raised.value).startswith(message)


def test_identity_changes_with_the_files() -> None:
    write("data/a.txt", "one")
    dataset = config.DatasetConfig(source="file://data")

    def identity() -> Any:
        return resolver().resolve(dataset, "f").identity

    before = identity()
    assert identity() == before
    write("data/b.txt", "two")
    after = identity()
    assert after != before
    write("data/b.txt", "three")
    assert identity() not in (before, after)


@pytest.mark.parametrize(
    "settings",
    [
        {"csv": {"delimiter": ";"}},
        {"csv": {"header": False}},
        {"text": {"rowsAre": "Line"}},
        {"encoding": "latin-1"},
        {"records": "data"},
        {"format": "Text"},
        {"columns": {"text": "{text}"}},
    ],
)
def test_identity_changes_with_the_way_of_reading(settings: dict[str, Any]) -> None:
    write("data/a.txt", "one")

    def identity(**settings: Any) -> Any:
        dataset = config.DatasetConfig.model_validate({"source": "file://data", **settings})
        return resolver().resolve(dataset, "f").identity

    assert identity() == identity()
    assert identity(**settings) != identity()


def test_corpus_can_be_read_twice() -> None:
    write("a.txt", "one")
    write("b.txt", "two")
    data = config.DataConfig(train=[config.DatasetConfig(source="file://b.txt"), config.DatasetConfig(source="file://a.txt")])
    texts = training_corpus(data, resolver())
    assert [*texts()] == [*texts()] == ["two", "one"]


PAIRS = b'{"text": "a", "label": "x", "other": "b"}\n{"text": "c", "label": 1, "other": "d"}\n'


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ({}, [{"text": "a", "label": "x"}, {"text": "c", "label": 1}]),
        ({"label": "other"}, [{"text": "a", "label": "b"}, {"text": "c", "label": "d"}]),
        (
            {"textPair": "other"},
            [{"text": "a", "label": "x", "text_pair": "b"}, {"text": "c", "label": 1, "text_pair": "d"}],
        ),
    ],
)
def test_reads_columns_by_role(columns: dict[str, str], values: list[dict[str, Any]]) -> None:
    write("a.jsonl", PAIRS)
    dataset = config.DatasetConfig.model_validate({"source": "file://a.jsonl", "columns": columns})
    assert [row.values for row in resolver("SequenceClassification").resolve(dataset, "f").rows()] == values


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.jsonl", b'{"text": "a"}', {}, "a.jsonl:1: there is no column label (there are: text): set columns.label to one"),
        ("a.jsonl", b'{"text": "a", "label": {}}', {}, "a.jsonl:1: column label is an object, not a label, a list of labels"),
        ("a.jsonl", PAIRS, {"textPair": "no"}, "a.jsonl:1: there is no column no (there are: label, other, text): set columns"),
        ("a.txt", b"a", {}, "a.txt: a plain text has no column label: set format to that of the file, or use"),
    ],
)  # fmt: skip
def test_rejects_missing_columns_of_the_objective(name: str, content: bytes, columns: dict[str, str], message: str) -> None:
    write(name, content)
    dataset = config.DatasetConfig.model_validate({"source": f"file://{name}", "columns": columns})
    with pytest.raises(DataError) as raised:
        list(resolver("SequenceClassification").resolve(dataset, "f").rows())
    assert str(raised.value).startswith(message)


def test_describes_how_a_source_is_read() -> None:
    write("data/a.jsonl", '{"body": "a"}')
    write("data/b.txt", "b")
    dataset = config.DatasetConfig.model_validate({"source": "file://data", "columns": {"text": "body"}})
    description = resolver().resolve(dataset, "f").describe()
    assert (description.address, description.format, description.files) == ("file://data", "JSONLines, Text", 2)
    assert description.columns == {"text": "body"}


def test_replaces_class_numbers_of_hub_datasets_with_names() -> None:
    import datasets  # takes seconds

    topics = datasets.ClassLabel(names=["sports", "science"])
    dataset = datasets.Dataset.from_dict(
        {"text": ["a", "b"], "topic": [1, -1], "tags": [[0, 1], []]},
        datasets.Features({"text": datasets.Value("string"), "topic": topics, "tags": datasets.List(topics)}),
    )
    columns = {"text": "text", "label": "topic", "tags": "tags"}
    source = RowSource(HubSource("hf://org/data[train]", dataset, ReadOptions()), columns)
    labels = [(row.values["label"], row.values["tags"]) for row in source.rows()]
    assert labels == [("science", ["sports", "science"]), (-1, [])]


def test_resolves_each_dataset_once() -> None:
    write("rows.jsonl", JSON)
    source = {"source": Path("rows.jsonl").absolute().as_uri()}
    data = config.DataConfig.model_validate({"train": [source], "evaluation": [source]})
    resolving = resolver()
    first, second = resolving.sources(data), resolving.sources(data)
    assert first["train"][0] is second["train"][0] is resolving.training_sources(data)[0]
    assert first["evaluation"][0] is second["evaluation"][0] is not first["train"][0]
    other = data.model_copy(update={"train": [data.train[0].model_copy(update={"weight": 2.0})]})
    assert resolving.training_sources(other)[0] is not first["train"][0]
