"""Numbers of rows that are told without reading the rows."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from finetune_trainer import config
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.data.sources.row_estimates import estimate_rows
from finetune_trainer.storage.base import Credentials

LINES = "".join(f'{{"text": "{number}"}}\n' for number in range(1000)).encode()


def estimate(folder: Path, *files: str) -> int | None:
    dataset = config.DatasetConfig(source=f"file://{folder}/{files[0] if len(files) == 1 else '*'}")
    resolver = SourceResolver(config.ObjectiveSpec(), folder / "cache", Credentials())
    return estimate_rows(resolver.resolve(dataset, "spec.data.train[0].source"))


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", LINES, 1000),
        ("a.csv", b"text,label\n" + b"a,b\n" * 30, 31),
        ("a.jsonl.gz", gzip.compress(LINES), None),
        ("a.json", b'[{"text": "a"}]', None),
    ],
)
def test_lines_are_counted_in_files_of_lines(name: str, content: bytes, rows: int | None, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert estimate(tmp_path, name) == rows


def test_the_metadata_of_a_table_has_its_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 70}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(LINES)
    assert estimate(tmp_path, "a.parquet") == 70
    assert estimate(tmp_path, "a.parquet", "b.jsonl") == 1070, "all files of a source together"
