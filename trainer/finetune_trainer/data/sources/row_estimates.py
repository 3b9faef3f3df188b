"""About how many rows a source has, estimated quickly: from lines or metadata, without parsing a row."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow.parquet

from finetune_trainer.data.sources.base import Source
from finetune_trainer.data.sources.decoding.compression import compression_of
from finetune_trainer.data.sources.file_source import FileSource
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats import format_name_of
from finetune_trainer.data.sources.hub_source import HubSource
from finetune_trainer.data.sources.row_source import RowSource

BLOCK_BYTES = 1 << 20


def estimate_rows(source: Source) -> int | None:
    """About how many rows the source has; None for files in which counting takes long, such as compressed ones."""
    if not isinstance(source, RowSource):
        return None
    match source.source:
        case HubSource() as hub:
            return len(hub.dataset)
        case FileSource() as files:
            counts = [_estimate(file, files.format) for file in files.files]
            known = [count for count in counts if count is not None]
            return sum(known) if len(known) == len(counts) else None
    return None


def _estimate(file: File, format_name: str) -> int | None:
    count = COUNTS.get(format_name_of(file, format_name))
    return count(file) if count is not None and compression_of(file) is None else None


def _count_lines(file: File) -> int:
    lines = 0
    with file.path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            lines += block.count(b"\n")
    return lines


def _count_table_rows(file: File) -> int:
    rows: int = pyarrow.parquet.read_metadata(file.path).num_rows
    return rows


COUNTS: dict[str, Callable[[File], int]] = {
    "JSONLines": _count_lines,
    "CSV": _count_lines,  # the header counts as a row, and so does a line within a quoted field
    "Parquet": _count_table_rows,
}
