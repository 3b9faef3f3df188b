"""Arrow's own files: the file and the stream format, Feather, and what `datasets` saves to disk."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.compression import open_seekable
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.arrow_table import BATCH_ROWS, columns_to_read, records
from finetune_trainer.data.sources.formats.base import Format
from finetune_trainer.data.sources.formats.hub_features import features_of
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError, first_line

_FILE_MAGIC, _FEATHER_1_MAGIC = b"ARROW1", b"FEA1"


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    with open_seekable(file) as content:
        try:
            source = pyarrow.memory_map(content) if isinstance(content, str) else pyarrow.PythonFile(content, "r")
            with source:
                schema, batches = _open(source)
                columns = columns_to_read(schema, options, file.name)
                selected = (batch.select(columns) for batch in batches)
                yield from records(_in_parts(selected), features_of(schema.metadata), file.name)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file.name}: not a readable Arrow file ({first_line(error)}): write it again") from error


def _open(source: pyarrow.NativeFile) -> tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]:
    start = source.read(len(_FILE_MAGIC))
    source.seek(0)
    if start == _FILE_MAGIC:
        reader = pyarrow.ipc.open_file(source)
        return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
    if start.startswith(_FEATHER_1_MAGIC):
        raise pyarrow.ArrowInvalid("version 1 of Feather, which Arrow no longer reads")
    stream = pyarrow.ipc.open_stream(source)
    return stream.schema, iter(stream)


def _in_parts(batches: Iterator[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    """Smaller batches, so that few Python objects are held at once."""
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


ARROW = Format((".arrow", ".feather", ".ipc", ".arrows"), _read)
