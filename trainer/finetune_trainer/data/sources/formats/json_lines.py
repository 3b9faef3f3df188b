"""JSON Lines: one object a line. Unlike a library's reader, this one names the invalid line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format, numbered_lines
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    for number, line in numbered_lines(file):
        if not line.strip():
            continue
        origin = f"{file.name}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{origin}: not valid JSON ({error.msg} at column {error.colno}): write one complete object a line"
            ) from error
        except RecursionError as error:
            raise DataError(f"{origin}: JSON nested too deeply: correct or remove the line") from error
        if not isinstance(record, dict):
            raise DataError(f"{origin}: a JSON {type(record).__name__} and not an object: write one object a line")
        yield Record(record, origin)


JSON_LINES = Format((".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"), _read)
