"""Compressed files and encodings."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from tests.support.reading import read_texts, resolve, write

from finetune_trainer.config import DatasetConfig
from finetune_trainer.protocol.outcome import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths."""
    monkeypatch.chdir(tmp_path)


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd, "zstd": zstd,
}  # fmt: skip
JSON_ROWS = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.mark.parametrize("suffix", [*COMPRESSIONS, "GZ", "Bz2"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", JSON_ROWS), ("b.json", b'[{"text": "one"},\n{"text": "two"}]'), ("C.CSV", b'text\none\ntwo\n')],
)  # fmt: skip
def test_reads_compressed_files(suffix: str, name: str, content: bytes) -> None:
    write(f"{name}.{suffix}", COMPRESSIONS[suffix.lower()](content))
    assert [text for text, _ in read_texts(f"{name}.{suffix}")] == ["one", "two"]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_reads_files_of_several_compressed_parts(suffix: str) -> None:
    compress = COMPRESSIONS[suffix]
    write(f"a.jsonl.{suffix}", compress(JSON_ROWS) + compress(b'{"text": "three"}'))
    assert [text for text, _ in read_texts(f"a.jsonl.{suffix}")] == ["one", "two", "three"]


def test_finds_compressed_files_in_a_folder() -> None:
    write("data/a.jsonl.ZST", zstd(JSON_ROWS))
    write("data/b.txt.xz", lzma.compress(b"three"))
    assert [text for text, _ in read_texts("data")] == ["one", "two", "three"]
    assert resolve("data").describe().compression == "Zstandard"


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_rejects_truncated_files(suffix: str) -> None:
    write(f"a.jsonl.{suffix}", COMPRESSIONS[suffix](JSON_ROWS * 1000)[:-9])
    with pytest.raises(DataError, match=rf"^a\.jsonl\.{suffix}: the compressed file is damaged \(.+\): copy it again$"):
        read_texts(f"a.jsonl.{suffix}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl.gz",
            JSON_ROWS,
            "a.jsonl.gz: the file is not compressed with gzip as its name says: remove .gz",
        ),
        (
            "a.jsonl",
            gzip.compress(b"x"),
            "a.jsonl: the file is compressed with gzip, unlike its name: let the name",
        ),
        (
            "a.txt.bz2",
            zstd(b"x"),
            "a.txt.bz2: the file is compressed with Zstandard, unlike its name: let the",
        ),
        ("a.jsonl.xz", b"", "a.jsonl.xz: the file is empty: fill it or leave it out"),
    ],
)
def test_rejects_names_that_contradict_the_content(name: str, content: bytes, message: str) -> None:
    write(name, content)
    with pytest.raises(DataError) as raised:
        read_texts(name)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv.gz", "a.parquet", "a.arrow", "a.tar"])
def test_rejects_pointers_of_git_lfs(name: str) -> None:
    write(name, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(DataError, match=rf"^{name}: is a Git LFS pointer and not the file itself: run git lfs pull"):
        read_texts(name)


def test_explains_windows_that_are_too_long() -> None:
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3])  # a frame with a window of 2 to the power of 31 bytes
    write("a.txt.zst", header + ((1 << 3) | 1).to_bytes(3, "little") + b"x")
    with pytest.raises(DataError, match=r"^a\.txt\.zst: the file was compressed with a window of more than 128 MiB"):
        read_texts("a.txt.zst")


def test_reads_a_text_that_begins_like_a_compressed_file() -> None:
    write("a.txt", "BZh is a magic number")
    assert read_texts("a.txt") == [("BZh is a magic number", "a.txt")]


TEXT = "Grüße, 世界"


@pytest.mark.parametrize(
    ("content", "settings", "encoding"),
    [
        (TEXT.encode("utf-8-sig"), {}, "utf-8-sig"),
        (TEXT.encode("utf-16"), {}, "utf-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), {}, "utf-16"),
        (codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"), {}, "utf-32"),
        (TEXT.encode("utf-16-le"), {"encoding": "utf-16-le"}, "utf-16-le"),
        (TEXT.encode("utf-8-sig"), {"encoding": "latin-1"}, "utf-8-sig"),
        (TEXT.encode("gb18030"), {"encoding": "GB18030"}, "GB18030"),
    ],
)
def test_reads_encodings(content: bytes, settings: dict[str, Any], encoding: str) -> None:
    write("a.txt", content)
    assert read_texts("a.txt", **settings) == [(TEXT, "a.txt")]
    assert resolve("a.txt", **settings).describe().encoding == encoding


def test_reads_tables_and_documents_in_other_encodings() -> None:
    write("a.csv", 'text;n\r\n"Größe\r\n2";1\r\n'.encode("utf-16"))
    write("b.json", '[{"text": "Größe"}]'.encode("latin-1"))
    assert read_texts("a.csv") == [("Größe\r\n2", "a.csv:2")]
    assert read_texts("b.json", encoding="latin-1") == [("Größe", "b.json:1")]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("naïve".encode("latin-1"), {}, "a.txt:1: byte 0xef at column 3 is not UTF-8: set encoding to that of the file"),
        ("ok\n\r\nGröße".encode("cp1252"), {}, "a.txt:3: byte 0xf6 at column 3 is not UTF-8"),
        (b"a\n\x81", {"encoding": "windows-1252"}, "a.txt:2: byte 0x81 at column 1 is not windows-1252: set encoding"),
        ("text".encode("utf-16-le"), {}, "a.txt:1: character 2 is NUL, read as UTF-8: remove it, or set encoding to that"),
        ("text".encode("utf-16-le"), {"encoding": "utf-16"}, "a.txt: the file does not begin with a byte-order mark: set"),
        ("text".encode("utf-16")[:-1], {}, "a.txt: the file is not utf-16: set encoding to that of the file"),
    ],
)
def test_rejects_text_in_another_encoding(content: bytes, settings: dict[str, Any], message: str) -> None:
    write("a.txt", content)
    with pytest.raises(DataError) as raised:
        read_texts("a.txt", **settings)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("encoding", ["klingon", "rot13"])
def test_rejects_unknown_encodings(encoding: str) -> None:
    with pytest.raises(ValueError, match=f"{encoding} is no text encoding"):
        DatasetConfig.model_validate({"source": "file://a.txt", "encoding": encoding})
