"""Image files: each is one row, labeled with the sub-folder that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format
from finetune_trainer.protocol.outcome import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def is_image(file: File) -> bool:
    """Whether the file's name ends with an image suffix."""
    return file.name.lower().endswith(IMAGE_SUFFIXES)


def _read(file: File, columns: Mapping[str, str]) -> Iterator[Row]:
    record = {"image": file.relative_path}
    for role in columns:
        if role == "label":
            folder, separator, _ = file.relative_path.partition("/")
            if not separator:
                raise DataError(f"{file.name}: the image is in no sub-folder that would be its label: move it into one")
            record["label"] = folder
        elif role != "image":
            raise DataError(f"{file.name}: an image file has no {role}: use JSONLines, CSV or Parquet, or another objective")
    root = file.path.parents[file.relative_path.count("/")]
    yield make_row(record, {role: role for role in record}, file.name)._replace(folder=root)


IMAGE_FOLDER = Format(IMAGE_SUFFIXES, _read, images=True)
