"""Records of Arrow tables, which Parquet files, Arrow files and datasets of the hub hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow
import pyarrow.types as types

from finetune_trainer.data.conversations.tools import without_nulls
from finetune_trainer.data.records.columns import missing_columns, needed_columns
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.formats.hub_features import class_name_decoders
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

BATCH_ROWS = 1024


def columns_to_read(schema: pyarrow.Schema, options: ReadOptions, name: str) -> list[str]:
    """The columns that the options ask for; raises DataError for a name that two columns share, and for values without use."""
    repeated = [column for column, count in Counter(schema.names).items() if count > 1]
    if repeated:
        raise DataError(f"{name}: several columns are named {', '.join(repeated)}: give each a name of its own")
    columns = needed_columns(options.columns, schema.names)
    if options.columns is not None and not missing_columns(options.columns, schema.names):
        for column in columns:
            _validate_type(schema.field(column).type, column, name)
    return columns


def records(
    batches: Iterable[pyarrow.RecordBatch | pyarrow.Table], features: Mapping[str, Any], name: str
) -> Iterator[Record]:  # fmt: skip
    """The rows of the batches, with the names of classes in place of their numbers; rows are counted from 1."""
    decoders = class_name_decoders(features)
    number = 0
    for batch in batches:
        objects = [field.name for field in batch.schema if _holds_objects(field.type)]
        for values in _as_plain_numbers(batch).to_pylist():
            number += 1
            for column in objects:
                values[column] = without_nulls(values[column])
            for column in decoders.keys() & values.keys():
                values[column] = decoders[column](values[column])
            yield Record(values, f"{name}:{number}")


def _holds_objects(kind: pyarrow.DataType) -> bool:
    """Whether the values are lists of objects, such as messages: each has the keys of all, with null for those it lacks."""
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and (types.is_struct(kind.value_type) or _holds_objects(kind.value_type))


def _as_plain_numbers(batch: pyarrow.RecordBatch | pyarrow.Table) -> pyarrow.RecordBatch | pyarrow.Table:
    """The batch with decimals as integers or floats: what JSON and CSV would hold."""
    for index, field in enumerate(batch.schema):
        if types.is_decimal(field.type):
            plain = pyarrow.int64() if field.type.scale <= 0 else pyarrow.float64()
            batch = batch.set_column(index, field.name, batch.column(index).cast(plain))
        elif types.is_float16(field.type):
            batch = batch.set_column(index, field.name, batch.column(index).cast(pyarrow.float32()))
    return batch


def _validate_type(kind: pyarrow.DataType, column: str, name: str) -> None:
    if types.is_temporal(kind) or types.is_map(kind) or types.is_union(kind):
        raise DataError(f"{name}: column {column} holds values of the type {kind}: write them as text, numbers or objects")
