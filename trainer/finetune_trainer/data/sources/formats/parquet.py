"""Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow
import pyarrow.parquet

from finetune_trainer.data.records.columns import needed_columns
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

BATCH_ROWS = 1024


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    try:
        with pyarrow.parquet.ParquetFile(file.path, memory_map=True) as table:
            columns = needed_columns(options.columns, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    yield Record(record, f"{file.name}:{number}")
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{file.name}: not a readable Parquet file ({reason}): write it again") from error


PARQUET = Format((".parquet",), _read)
