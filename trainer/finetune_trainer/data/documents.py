"""Documents of the data's sources, in an order that is the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finetune_trainer import config
from finetune_trainer.data.files import File, find
from finetune_trainer.data.formats import Document, document, format_of, missing_column, suffixes_of
from finetune_trainer.outcome import ConfigurationError
from finetune_trainer.sources import explained_hub
from finetune_trainer.storage import Credentials

__all__ = ["Corpus", "Document", "Source", "corpus", "read_documents", "resolve"]


class Source(Protocol):
    """Where documents come from; resolved, so that reading it needs no network any more."""

    @property
    def identity(self) -> Any:
        """What changes when the documents do; JSON."""
        ...

    def documents(self) -> Iterator[Document]:
        """All documents, each time anew; raises DataError for a file or row that cannot be used."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Files of one `config.Dataset`."""

    dataset: config.Dataset
    files: Sequence[File]

    @property
    def identity(self) -> Any:
        return [self.dataset.format, self.dataset.columns.document(), [file.identity for file in self.files]]

    def documents(self) -> Iterator[Document]:
        for file in self.files:
            yield from format_of(file, self.dataset.format).read(file, self.dataset.columns.text)


@dataclass(frozen=True)
class HubSource:
    """One split of a dataset of the hub, already on this machine as a `datasets.Dataset`."""

    name: str
    column: str
    rows: Any

    @property
    def identity(self) -> Any:
        return [self.name, self.column, self.rows._fingerprint]

    def documents(self) -> Iterator[Document]:
        if self.column not in self.rows.column_names:
            raise missing_column(self.column, self.rows.column_names, self.name)
        number = 0
        for batch in self.rows.select_columns([self.column]).iter(1000):
            for number, value in enumerate(batch[self.column], start=number + 1):  # noqa: B020  # counts on
                yield document(value, self.column, f"{self.name}:{number}")


@dataclass(frozen=True)
class Corpus:
    """All texts of some sources: what a tokenizer is trained on."""

    sources: Sequence[Source]

    @property
    def identity(self) -> Any:
        """What changes when the texts do; JSON."""
        return [source.identity for source in self.sources]

    def __call__(self) -> Iterator[str]:
        """The texts, each time anew."""
        return (item.text for source in self.sources for item in source.documents())


def corpus(data: config.Data, *, cache: Path, credentials: Credentials) -> Corpus:
    """The training texts of the document; files of a remote storage are copied below the cache."""
    return Corpus(resolve_all(data.train, field="spec.data.train", cache=cache, credentials=credentials, default_split="train"))


def resolve_all(
    datasets: Sequence[config.Dataset], *, field: str, cache: Path, credentials: Credentials, default_split: str
) -> list[Source]:
    """Every dataset of a list of the document; `field` is the list's path."""
    return [
        resolve(d, field=f"{field}[{i}].source", cache=cache, credentials=credentials, default_split=default_split)
        for i, d in enumerate(datasets)
    ]


def resolve(
    dataset: config.Dataset, *, field: str, cache: Path, credentials: Credentials, default_split: str = "train"
) -> Source:
    """Find what the dataset names and bring it to this machine.

    Raises DataError when nothing is there, ConfigurationError or StorageError when it cannot be fetched; all begin with
    `field`.
    """
    if dataset.source.startswith("hf://"):
        return _load_from_hub(dataset, field, cache, credentials, default_split)
    files = find(
        dataset.source, suffixes=suffixes_of(dataset.format), field=field, cache=cache, credentials=credentials,
        secret=dataset.credentials,
    )  # fmt: skip
    return FileSource(dataset, files)


def read_documents(
    dataset: config.Dataset, *, field: str, cache: Path, credentials: Credentials, default_split: str = "train"
) -> Iterator[Document]:
    """The dataset's documents; raises what `resolve` does, and DataError for a file or row that cannot be used."""
    return resolve(
        dataset, field=field, cache=cache, credentials=credentials, default_split=default_split
    ).documents()  # fmt: skip


def _load_from_hub(dataset: config.Dataset, field: str, cache: Path, credentials: Credentials, default_split: str) -> HubSource:
    import datasets  # takes seconds to import, which runs on files need not spend

    split = dataset.split or default_split
    token = credentials.of(dataset.credentials, f"{field.rpartition('.')[0]}.credentials").get("HF_TOKEN")
    with explained_hub(dataset.source, field):
        try:
            rows = datasets.load_dataset(
                dataset.source.removeprefix("hf://"), split=split, revision=dataset.revision, token=token,
                cache_dir=str(cache / "hub-datasets"),
            )  # fmt: skip
        except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError) as error:
            raise ConfigurationError(
                f"{field}: the hub has no {dataset.source} that may be read: correct the name, or name a Secret with HF_TOKEN "
                f"in {field.rpartition('.')[0]}.credentials"
            ) from error
        except ValueError as error:
            text = str(error).strip().split("\n", 1)[0]
            raise ConfigurationError(f"{field}: cannot load split {split} of {dataset.source} ({text})") from error
    return HubSource(f"{dataset.source}[{split}]", dataset.columns.text, rows)
