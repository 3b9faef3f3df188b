"""Records of local files, and of remote files that were copied to this machine."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer import config
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.base import SourceDescription
from finetune_trainer.data.sources.decoding.compression import compression_of
from finetune_trainer.data.sources.files import File, find_files
from finetune_trainer.data.sources.folder_layout import (
    FileKind,
    Selection,
    SplitChoice,
    describe_unread,
    select_split,
    without_descriptions,
)
from finetune_trainer.data.sources.formats import format_name_of, format_of, suffixes_of
from finetune_trainer.data.sources.formats.image_folder import IMAGE_SUFFIXES, is_image
from finetune_trainer.data.sources.formats.plain_text import is_plain_text
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.storage.base import Credentials


@dataclass(frozen=True)
class FileSource:
    """The files of one `config.DatasetConfig`."""

    address: str
    format: str
    options: ReadOptions
    files: Sequence[File]
    attachments: Sequence[File] = ()
    """Files that records may refer to, such as images."""
    notes: tuple[str, ...] = ()
    """Sentences about files that are left out."""

    @property
    def identity(self) -> Any:
        files = [file.identity for file in self.files]
        attachments = [file.identity for file in self.attachments]
        return [self.format, self.options.identity, files, attachments]

    def contents(self, digest: Callable[[Path], str]) -> list[tuple[str, str]]:
        return [(file.relative_path, digest(file.path)) for file in (*self.files, *self.attachments)]

    def records(self) -> Iterator[Record]:
        for file in self.files:
            folder = file.path.parent
            for values, origin, own_folder in format_of(file, self.format).read(file, self.options):
                yield Record(values, origin, own_folder or folder)

    def describe(self) -> SourceDescription:
        first = self.files[0]
        names = dict.fromkeys(format_name_of(file, self.format) for file in self.files)
        details = format_of(first, self.format).inspect(first, self.options)
        return SourceDescription(
            self.address,
            ", ".join(names),
            len(self.files),
            compression=compression_of(first),
            encoding=details.encoding,
            delimiter=details.delimiter,
            notes=self.notes + details.notes,
        )


def find_source(
    dataset: config.DatasetConfig, options: ReadOptions, *, roles: Collection[str], field: str, cache: Path,
    credentials: Credentials, default_split: str,
) -> FileSource:  # fmt: skip
    """The files of the dataset; raises DataError if there are none, and StorageError if they cannot be fetched."""
    files, attachments, others = find_files(
        dataset.source,
        suffixes=suffixes_of(dataset.format, roles),
        attachment_suffixes=IMAGE_SUFFIXES if "image" in roles else (),
        field=field, cache=cache, credentials=credentials, secret=dataset.credentials,
    )  # fmt: skip
    images = [file for file in files if is_image(file)]
    if dataset.format == "Auto" and 0 < len(images) < len(files):
        # The folder holds tables and the images that their rows refer to.
        files, attachments = [file for file in files if not is_image(file)], [*attachments, *images]
    kind = _kind_of(files, dataset.format, roles)
    found = without_descriptions(files, kind) if dataset.format == "Auto" else Selection(files)
    selected = Selection(found.files)
    if dataset.split or not glob.has_magic(dataset.source):
        choice = SplitChoice(dataset.split, default_split, f"{field.removesuffix('.source')}.split")
        selected = select_split(found.files, choice, kind)
    notes = describe_unread(others) + found.notes + selected.notes
    return FileSource(dataset.source, dataset.format, options, selected.files, attachments, notes)


def _kind_of(files: Sequence[File], file_format: str, roles: Collection[str]) -> FileKind:
    if "label" in roles and all(map(is_image, files)):
        return FileKind.LABELED_IMAGES
    are_texts = file_format == "Text" or (file_format == "Auto" and all(map(is_plain_text, files)))
    return FileKind.TEXTS if are_texts else FileKind.TABLES
