"""CSV with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format, numbered_lines
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

# The csv module's default limit of 128 kB is shorter than an ordinary article.
csv.field_size_limit(2**31 - 1)


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    reader = csv.reader((line for _, line in numbered_lines(file)), strict=True)
    next_line = 1  # a quoted field may span several lines, so that a row begins where the one before it ended
    try:
        header = next(reader)
        next_line = reader.line_num + 1
        for fields in reader:
            origin, next_line = f"{file.name}:{next_line}", reader.line_num + 1
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{origin}: {len(fields)} fields under a header of {len(header)}: quote fields that hold commas"
                )
            yield Record(dict(zip(header, fields, strict=True)), origin)
    except csv.Error as error:
        raise DataError(f"{file.name}:{next_line}: not valid CSV ({error}): correct the quotes of this row") from error


CSV = Format((".csv", ".csv.gz"), _read)
