"""WebDataset archives."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from tests.support.reading import read_rows, read_texts, write

from finetune_trainer.protocol.outcome import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths."""
    monkeypatch.chdir(tmp_path)


def archive(*members: tuple[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


IMAGES = archive(
    ("./a/0001.jpg", b"first"), ("./a/0001.cls", "3"), ("./a/0001.json", '{"caption": "a cat"}'),
    ("./b/0001.JPG", b"second"), ("./b/0001.cls", "0\n"), ("./b/._0001.jpg", b"of another system"),
    ("./b/0001.json", '{"caption": "a dog"}'),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), [("a.tar", IMAGES), ("b.tar.gz", gzip.compress(IMAGES)), ("C.TGZ", gzip.compress(IMAGES))]
)
def test_groups_the_files_of_a_sample(name: str, content: bytes) -> None:
    write(name, content)
    rows = read_rows(name, "ImageClassification")
    assert [(row.values["image"], row.values["label"], row.origin) for row in rows] == [
        (b"first", 3, f"{name}:a/0001"),
        (b"second", 0, f"{name}:b/0001"),
    ]
    assert read_texts(name, columns={"text": "json.caption"}) == [("a cat", f"{name}:a/0001"), ("a dog", f"{name}:b/0001")]


def test_reads_texts_and_all_shards_of_a_folder() -> None:
    write("shards/00000.tar", archive(("x.txt", "one"), ("y.txt", "zwölf")))
    write("shards/00001.tar", archive(("x.txt", "two")))
    assert [text for text, _ in read_texts("shards")] == ["one", "zwölf", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(("a.txt", "1"), ("b.txt", "2"), ("a.cls", "3")), "a.tar:a: other files are between those of the sample"),
        (archive(("a.txt", "1"), ("a.TXT", "2")), "a.tar:a: the sample has two files .txt: remove one"),
        (archive(("a.txt", "1"), ("b.cls", "2")), "a.tar:b: there is no column text (there are: __key__, cls, label)"),
        (archive(("a.json", "{"), ("a.txt", "1")), "a.tar:a.json: not a readable .json (Expecting property name"),
        (archive(("a.txt", b"\xff")), "a.tar:a.txt: not a readable .txt ('utf-8' codec can't decode byte 0xff"),
        (archive(), "a.tar: the archive holds no files"),
        (b"no archive", "a.tar: not a readable tar archive ("),
        (archive(("a.txt", "1" * 2000))[:1000], "a.tar: not a readable tar archive ("),
    ],
)  # fmt: skip
def test_rejects_archives_that_would_be_misread(content: bytes, message: str) -> None:
    write("a.tar", content)
    with pytest.raises(DataError) as raised:
        read_rows("a.tar")
    assert str(raised.value).startswith(message)
