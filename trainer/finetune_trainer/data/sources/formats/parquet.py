"""Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow
import pyarrow.parquet

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.compression import open_seekable
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.arrow_table import BATCH_ROWS, columns_to_read, records
from finetune_trainer.data.sources.formats.base import Format
from finetune_trainer.data.sources.formats.hub_features import features_of
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError, first_line


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    with open_seekable(file) as content:
        try:
            with pyarrow.parquet.ParquetFile(content, memory_map=isinstance(content, str)) as table:
                columns = columns_to_read(table.schema_arrow, options, file.name)
                batches = table.iter_batches(batch_size=BATCH_ROWS, columns=columns)
                yield from records(batches, features_of(table.schema_arrow.metadata), file.name)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file.name}: not a readable Parquet file ({first_line(error)}): write it again") from error


PARQUET = Format((".parquet", ".pq"), _read)
