"""Records of a dataset on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer import config
from finetune_trainer.config.storage_schemes import HUB
from finetune_trainer.data.records.columns import needed_columns
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.base import SourceDescription
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import ConfigurationError, first_line
from finetune_trainer.storage.base import Credentials, credentials_field
from finetune_trainer.storage.hub import explain_hub_errors


@dataclass(frozen=True)
class HubSource:
    """One split of a hub dataset, downloaded as a `datasets.Dataset`."""

    name: str
    dataset: Any
    options: ReadOptions

    @property
    def identity(self) -> Any:
        return [self.name, self.options.identity, self.dataset._fingerprint]

    def contents(self, digest: Callable[[Path], str]) -> list[tuple[str, str]]:
        # A new commit need not change the rows, and a new version of the library need not write the same bytes: only the
        # prepared sequences can be compared.
        return []

    def records(self) -> Iterator[Record]:
        columns = needed_columns(self.options.columns, self.dataset.column_names)
        selected = self.dataset.select_columns(columns)
        selected = _without_decoding(selected)
        class_names = _class_names(selected)
        for number, record in enumerate(selected, start=1):
            named = {column: _replace_class_numbers(record[column], names) for column, names in class_names.items()}
            yield Record({**record, **named}, f"{self.name}:{number}")

    def describe(self) -> SourceDescription:
        return SourceDescription(self.name, "hub dataset", files=1)


def load_source(
    dataset: config.DatasetConfig, options: ReadOptions, *, field: str, cache: Path, credentials: Credentials,
    default_split: str,
) -> HubSource:  # fmt: skip
    """Download the dataset; raises ConfigurationError, beginning with `field`, if it or its split cannot be loaded."""
    import datasets  # takes seconds to import; runs on files do without it

    split = dataset.split or default_split
    token = credentials.read_for(dataset.credentials, field).get("HF_TOKEN")
    with explain_hub_errors(dataset.source, field):
        try:
            loaded = datasets.load_dataset(
                HUB.path(dataset.source), split=split, revision=dataset.revision, token=token,
                cache_dir=str(cache / "hub-datasets"),
            )  # fmt: skip
        except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError) as error:
            raise ConfigurationError(
                f"{field}: the hub has no {dataset.source} that may be read: correct the name, or name a Secret with "
                f"HF_TOKEN in {credentials_field(field)}"
            ) from error
        except ValueError as error:
            reason = first_line(error)
            raise ConfigurationError(f"{field}: cannot load split {split} of {dataset.source} ({reason})") from error
    return HubSource(f"{dataset.source}[{split}]", loaded, options)


def _class_names(dataset: Any) -> dict[str, list[str]]:
    """The class names of each column that holds class numbers or lists of them."""
    import datasets

    names = {}
    for column, feature in dataset.features.items():
        item = getattr(feature, "feature", feature)
        if isinstance(item, datasets.ClassLabel) and item.names:
            names[column] = list(item.names)
    return names


def _replace_class_numbers(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_replace_class_numbers(item, names) for item in value]
    # -1 marks a row without a label.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _without_decoding(dataset: Any) -> Any:
    """The dataset with images as bytes or paths, so that a damaged image is reported with its row."""
    import datasets

    for column, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset
