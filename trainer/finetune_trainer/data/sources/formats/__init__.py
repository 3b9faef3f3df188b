"""The file formats. A new one is a module here, an entry of `FORMATS` and a value of `DatasetConfig.format`."""

from __future__ import annotations

from collections.abc import Collection

from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.arrow_file import ARROW
from finetune_trainer.data.sources.formats.base import Format
from finetune_trainer.data.sources.formats.conll import CONLL
from finetune_trainer.data.sources.formats.csv_table import CSV
from finetune_trainer.data.sources.formats.image_folder import IMAGE_FOLDER
from finetune_trainer.data.sources.formats.json_rows import JSON, JSON_LINES
from finetune_trainer.data.sources.formats.parquet import PARQUET
from finetune_trainer.data.sources.formats.plain_text import PLAIN_TEXT
from finetune_trainer.data.sources.formats.web_dataset import WEB_DATASET
from finetune_trainer.data.sources.names import COMPRESSION_SUFFIXES, uncompressed_name
from finetune_trainer.protocol.outcome import DataError

FORMATS: dict[str, Format] = {
    "JSONLines": JSON_LINES,
    "JSON": JSON,
    "CSV": CSV,
    "Parquet": PARQUET,
    "Arrow": ARROW,
    "WebDataset": WEB_DATASET,
    "CoNLL": CONLL,
    "Text": PLAIN_TEXT,
    "ImageFolder": IMAGE_FOLDER,
}

UNREAD_SUFFIXES = {
    (".zip", ".7z", ".rar"): "unpack the archive, or compress each file by itself",
    (".xlsx", ".xls", ".ods", ".sav", ".dta"): "save the table as CSV or Parquet",
    (".pkl", ".pickle", ".pt", ".npy", ".npz", ".h5", ".sqlite", ".avro"): "write the rows as JSON lines or Parquet",
    (".pdf", ".docx", ".epub", ".odt"): "convert the document to plain text",
}
"""What to do with files of well-known kinds that no format reads."""


def format_name_of(file: File, name: str) -> str:
    """The name of the file's format: `name`, or for Auto the one with the file's suffix; raises DataError if there is none."""
    if name != "Auto":
        return name
    file_name = uncompressed_name(file.name)
    for candidate, file_format in FORMATS.items():
        if file_name.endswith(file_format.suffixes):
            return candidate
    for suffixes, remedy in UNREAD_SUFFIXES.items():
        if file_name.endswith(suffixes):
            raise DataError(f"{file.name}: such files are not read: {remedy}")
    examples = ", ".join(f"{name} ({file_format.suffixes[0]})" for name, file_format in FORMATS.items())
    raise DataError(
        f"{file.name}: no format has this suffix: set format to one of {examples}, or correct the name; files compressed as "
        f"{', '.join(COMPRESSION_SUFFIXES)} are read too"
    )


def format_of(file: File, name: str) -> Format:
    """The format with this name, or for Auto the one with the file's suffix; raises DataError for an unknown suffix."""
    return FORMATS[format_name_of(file, name)]


def suffixes_of(name: str, roles: Collection[str]) -> tuple[str, ...]:
    """The suffixes of the format with this name, or for Auto those of all formats that support the roles."""
    if name != "Auto":
        return FORMATS[name].suffixes
    suffixes: list[str] = []
    for candidate in FORMATS.values():
        if candidate.supports(roles):
            suffixes += candidate.suffixes
    return tuple(suffixes)
