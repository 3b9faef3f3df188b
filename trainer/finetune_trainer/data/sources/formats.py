"""How rows are read from each kind of file. Every format is one entry of `FORMATS`.

The readers are our own where a library would not say which line is wrong.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow
import pyarrow.parquet

from finetune_trainer.data.records.row import Row, make_row, missing_column_error
from finetune_trainer.data.sources.files import File
from finetune_trainer.protocol.outcome import DataError

# The csv module's own limit of 128 kB is below the length of an ordinary article.
csv.field_size_limit(2**31 - 1)


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
Reader = Callable[[File, Mapping[str, str]], Iterator[Row]]


@dataclass(frozen=True)
class Format:
    """A kind of file: how its names end, and the reader that gives one file's records of the columns named by role."""

    suffixes: tuple[str, ...]
    read: Reader
    images: bool | None = None
    """Whether each row is an image; None where that is for the columns to say."""

    def suits(self, roles: Collection[str]) -> bool:
        """Whether rows with these roles may be looked for in such files."""
        return self.images is None or self.images == ("image" in roles)


def format_of(file: File, wanted: str) -> Format:
    """The format by name, or for Auto by the file's suffix; raises DataError for a suffix that no format has."""
    if wanted != "Auto":
        return FORMATS[wanted]
    for candidate in FORMATS.values():
        if file.name.lower().endswith(candidate.suffixes):
            return candidate
    raise DataError(f"{file.name}: no format has this suffix: set the data's format to one of {', '.join(FORMATS)}")


def suffixes_of(wanted: str, roles: Collection[str]) -> tuple[str, ...]:
    """How the names of a format's files end; for Auto, of all formats that suit the roles."""
    chosen = [item for item in FORMATS.values() if item.suits(roles)] if wanted == "Auto" else [FORMATS[wanted]]
    return tuple(suffix for item in chosen for suffix in item.suffixes)


def _lines(file: File) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, compressed or not; raises DataError for other bytes and for an empty file."""
    number = 0
    try:
        with gzip.open(file.path) if file.name.endswith(".gz") else file.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):  # the last number is needed after the loop
                yield number, _decoded(line, f"{file.name}:{number}", first=number == 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file.name}:{number + 1}: the compressed file is damaged ({error}): copy it anew") from error
    except OSError as error:
        raise DataError(f"{file.name}: the file cannot be read ({error.strerror}): correct its mode or owner") from error
    if number == 0:
        raise DataError(f"{file.name}: the file is empty: fill it or leave it out")


def _decoded(line: bytes, origin: str, *, first: bool = False) -> str:
    try:
        return line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin}: byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8: convert the file to UTF-8"
        ) from error


def _read_json_lines(file: File, names: Mapping[str, str]) -> Iterator[Row]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        origin = f"{file.name}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{origin}: not valid JSON ({error.msg} at column {error.colno}): write one complete object a line"
            ) from error
        except RecursionError as error:
            raise DataError(f"{origin}: JSON nested too deeply: correct or remove the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{origin}: a JSON {type(row).__name__} and not an object: write one object a line")
        yield make_row(row, names, origin)


def _read_csv(file: File, names: Mapping[str, str]) -> Iterator[Row]:
    rows = csv.reader((line for _, line in _lines(file)), strict=True)
    start = 1
    try:
        header = next(rows)
        _validate_columns(names, header, f"{file.name}:1")
        start = rows.line_num + 1
        for row in rows:
            origin, start = f"{file.name}:{start}", rows.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{origin}: {len(row)} fields under a header of {len(header)}: quote fields that hold commas")
            yield make_row(dict(zip(header, row, strict=True)), names, origin)
    except csv.Error as error:
        raise DataError(f"{file.name}:{start}: not valid CSV ({error}): correct the quotes of this row") from error


def _read_parquet(file: File, names: Mapping[str, str]) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(file.path, memory_map=True) as table:
            _validate_columns(names, table.schema_arrow.names, file.name)
            number = 0
            for batch in table.iter_batches(batch_size=1024, columns=list(dict.fromkeys(names.values()))):
                for number, row in enumerate(batch.to_pylist(), start=number + 1):  # noqa: B020  # counts on
                    yield make_row(row, names, f"{file.name}:{number}")
    except (pyarrow.ArrowException, OSError) as error:
        text = str(error).split("\n", 1)[0]
        raise DataError(f"{file.name}: not a readable Parquet file ({text}): write it anew") from error


def _read_text(file: File, names: Mapping[str, str]) -> Iterator[Row]:
    for role in names:
        if role != "text":
            raise DataError(f"{file.name}: a plain text has no {role}: use JSONLines, CSV or Parquet, or another objective")
    # Among many files, such as a package's __init__.py, an empty one is nothing out of the ordinary.
    text = "".join(line for _, line in _lines(file)) if file.path.stat().st_size else ""
    yield make_row({"text": text}, {"text": "text"}, file.name)


def _read_image(file: File, names: Mapping[str, str]) -> Iterator[Row]:
    row = {"image": file.within}
    for role in names:
        if role == "label":
            folder, divided, _ = file.within.partition("/")
            if not divided:
                raise DataError(f"{file.name}: the image is in no sub-folder that would be its label: move it into one")
            row["label"] = folder
        elif role != "image":
            raise DataError(f"{file.name}: an image file has no {role}: use JSONLines, CSV or Parquet, or another objective")
    root = file.path.parents[file.within.count("/")]
    yield make_row(row, {role: role for role in row}, file.name)._replace(folder=root)


def _validate_columns(names: Mapping[str, str], present: Sequence[str], origin: str) -> None:
    for role, name in names.items():
        if name not in present:
            raise missing_column_error(role, name, present, origin)


FORMATS: dict[str, Format] = {
    "JSONLines": Format((".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz"), _read_json_lines),
    "CSV": Format((".csv", ".csv.gz"), _read_csv),
    "Parquet": Format((".parquet",), _read_parquet),
    "Text": Format(
        (
            ".txt", ".txt.gz", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".yaml", ".yml", ".toml", ".py", ".pyi", ".c",
            ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".scala", ".js", ".ts", ".rb", ".php", ".sh", ".sql",
            ".r", ".jl", ".lua",
        ),
        _read_text,
        images=False,
    ),
    "ImageFolder": Format(IMAGE_SUFFIXES, _read_image, images=True),
}  # fmt: skip
