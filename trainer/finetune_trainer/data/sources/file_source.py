"""Rows of local files, and of remote files that were copied to this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer import config
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.files import File, find_files
from finetune_trainer.data.sources.formats import format_of, suffixes_of
from finetune_trainer.data.sources.formats.image_folder import IMAGE_SUFFIXES, is_image
from finetune_trainer.storage.base import Credentials


@dataclass(frozen=True)
class FileSource:
    """The files of one `config.DatasetConfig`."""

    format: str
    columns: Mapping[str, str]
    files: Sequence[File]
    task: str | None = None
    attachments: Sequence[File] = ()
    """Files that rows may refer to, such as images."""

    @property
    def identity(self) -> Any:
        files = [file.identity for file in self.files]
        attachments = [file.identity for file in self.attachments]
        return [self.format, dict(self.columns), files, attachments, self.task]

    def rows(self) -> Iterator[Row]:
        for file in self.files:
            for row in format_of(file, self.format).read(file, self.columns):
                folder = row.folder or file.path.parent if "image" in self.columns else None
                yield row._replace(task=self.task, folder=folder)


def find_source(
    dataset: config.DatasetConfig, columns: Mapping[str, str], *, field: str, cache: Path, credentials: Credentials
) -> FileSource:  # fmt: skip
    """The files of the dataset; raises DataError if there are none, and StorageError if they cannot be fetched."""
    files, attachments = find_files(
        dataset.source,
        suffixes=suffixes_of(dataset.format, columns),
        attachment_suffixes=IMAGE_SUFFIXES if "image" in columns else (),
        field=field, cache=cache, credentials=credentials, secret=dataset.credentials,
    )  # fmt: skip
    images = [file for file in files if is_image(file)]
    if dataset.format == "Auto" and 0 < len(images) < len(files):
        # The folder holds tables and the images that their rows refer to.
        files, attachments = [file for file in files if not is_image(file)], [*attachments, *images]
    return FileSource(dataset.format, columns, files, dataset.task, attachments)
