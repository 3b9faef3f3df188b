"""Rows of a dataset on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer import config
from finetune_trainer.config.storage_schemes import HUB
from finetune_trainer.data.records.row import Row, make_row, missing_column_error
from finetune_trainer.protocol.outcome import ConfigurationError, first_line
from finetune_trainer.storage.base import Credentials, credentials_field
from finetune_trainer.storage.hub import explain_hub_errors


@dataclass(frozen=True)
class HubSource:
    """One split of a hub dataset, downloaded as a `datasets.Dataset`."""

    name: str
    columns: Mapping[str, str]
    dataset: Any
    task: str | None = None

    @property
    def identity(self) -> Any:
        return [self.name, dict(self.columns), self.dataset._fingerprint, self.task]

    def rows(self) -> Iterator[Row]:
        for role, column in self.columns.items():
            if column not in self.dataset.column_names:
                raise missing_column_error(role, column, self.dataset.column_names, self.name)
        selected = self.dataset.select_columns(list(dict.fromkeys(self.columns.values())))
        if "image" in self.columns:
            selected = _without_decoding(selected, self.columns["image"])
        class_names = _class_names(selected)
        for number, record in enumerate(selected, start=1):
            named = {column: _replace_class_numbers(record[column], names) for column, names in class_names.items()}
            yield make_row({**record, **named}, self.columns, f"{self.name}:{number}")._replace(task=self.task)


def load_source(
    dataset: config.DatasetConfig, columns: Mapping[str, str], *, field: str, cache: Path, credentials: Credentials,
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
    return HubSource(f"{dataset.source}[{split}]", columns, loaded, dataset.task)


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


def _without_decoding(dataset: Any, column: str) -> Any:
    """The dataset with images as bytes or paths, so that a damaged image is reported with its row."""
    import datasets

    if isinstance(dataset.features[column], datasets.Image):
        return dataset.cast_column(column, datasets.Image(decode=False))
    return dataset
