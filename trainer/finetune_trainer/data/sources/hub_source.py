"""Records of a dataset on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer import config
from finetune_trainer.config.storage_schemes import HUB
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.base import SourceDescription
from finetune_trainer.data.sources.formats.arrow_table import BATCH_ROWS, columns_to_read, records
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError, first_line
from finetune_trainer.storage.base import Credentials, credentials_field
from finetune_trainer.storage.hub import explain_hub_errors

_SUBSETS = re.compile(r"(?:available configs|not found\. Available): \[([^\]]*)\]")


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
        # Tables of Arrow, not decoded rows, so that a damaged image is reported with its row.
        columns = columns_to_read(self.dataset.features.arrow_schema, self.options, self.name)
        tables = self.dataset.select_columns(columns).with_format("arrow").iter(BATCH_ROWS)
        return records(tables, self.dataset.features.to_dict(), self.name)

    def describe(self) -> SourceDescription:
        return SourceDescription(self.name, "hub dataset", files=1)


def load_source(
    dataset: config.DatasetConfig, options: ReadOptions, *, field: str, cache: Path, credentials: Credentials,
    default_split: str,
) -> HubSource:  # fmt: skip
    """Download the dataset; raises ConfigurationError, beginning with `field`, if it or its split cannot be loaded."""
    import datasets  # takes seconds to import; runs on files do without it

    # Files without splits of their own are those of the split train.
    split = dataset.split or ("train" if dataset.data_files else default_split)
    token = credentials.read_for(dataset.credentials, field).get("HF_TOKEN")
    with explain_hub_errors(dataset.source, field), heartbeat.while_busy():
        try:
            loaded = datasets.load_dataset(
                HUB.path(dataset.source), name=dataset.subset, data_files=list(dataset.data_files) or None, split=split,
                revision=dataset.revision, token=token, cache_dir=str(cache / "hub-datasets"),
            )  # fmt: skip
        except (ValueError, FileNotFoundError) as error:
            raise _explain(error, dataset, split, field) from error
    name = dataset.source if dataset.subset is None else f"{dataset.source}/{dataset.subset}"
    return HubSource(f"{name}[{split}]", loaded, options)


def _explain(error: Exception, dataset: config.DatasetConfig, split: str, field: str) -> ConfigurationError:
    import datasets

    section = field.removesuffix(".source")
    # After an earlier download the library looks for the files in its cache and forgets that the hub does not have them.
    are_missing = isinstance(error, datasets.exceptions.DataFilesNotFoundError) or "find cache" in str(error)
    if are_missing and dataset.data_files:
        files = ", ".join(dataset.data_files)
        return ConfigurationError(
            f"{section}.dataFiles: neither {dataset.source} nor the cache has {files}: correct the paths or patterns"
        )
    if isinstance(error, FileNotFoundError):
        return ConfigurationError(
            f"{field}: the hub has no {dataset.source} that may be read: correct the name, or name a Secret with HF_TOKEN in "
            f"{credentials_field(field)}"
        )
    if subsets := _SUBSETS.search(str(error)):
        return ConfigurationError(f"{section}.subset: {dataset.source} has the subsets {subsets[1]}: name one of them")
    return ConfigurationError(f"{field}: cannot load split {split} of {dataset.source} ({first_line(error)})")
