"""Image files: each is one row, labeled with the sub-folder that holds it."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format, validate_columns
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga",
)  # fmt: skip


def is_image(file: File) -> bool:
    """Whether the file's name ends with an image suffix."""
    return file.name.lower().endswith(IMAGE_SUFFIXES)


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    validate_columns(file, options, ("image", "label"), "an image file")
    values = {"image": file.relative_path}
    folder, separator, _ = file.relative_path.partition("/")
    if separator:
        values["label"] = folder
    elif "label" in (options.columns or ()):
        raise DataError(f"{file.name}: the image is in no sub-folder that would be its label: move it into one")
    yield Record(values, file.name, folder=file.path.parents[file.relative_path.count("/")])


IMAGE_FOLDER = Format(IMAGE_SUFFIXES, _read, images=True)
