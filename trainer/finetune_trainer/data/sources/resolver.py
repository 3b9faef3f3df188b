"""Resolves the datasets of a document to sources on this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_trainer import config
from finetune_trainer.config.conversation import ConversationConfig
from finetune_trainer.config.objectives.chat import ChatObjectiveConfig
from finetune_trainer.config.storage_schemes import HUB
from finetune_trainer.data.conversations.reader import ConversationReader
from finetune_trainer.data.conversations.shapes import ShapeFinder
from finetune_trainer.data.sources import file_source, hub_source
from finetune_trainer.data.sources.base import RecordSource, Source
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.data.sources.row_source import RowSource
from finetune_trainer.data.sources.sampling import SampleLimit, first_rows
from finetune_trainer.storage.base import Credentials


@dataclass(frozen=True)
class SourceResolver:
    """Resolves datasets with the columns that the objective reads; `cache` receives the copies of remote files."""

    objective: config.ObjectiveSpec
    cache: Path
    credentials: Credentials
    limit: SampleLimit | None = None
    """Resolves to the first rows of each source; None for all rows."""
    _resolved: dict[str, tuple[config.DatasetConfig, Source]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Datasets by field with their sources, because resolving one lists a storage prefix or opens a hub dataset."""

    def sources(self, data: config.DataConfig) -> dict[str, list[Source]]:
        """The sources of `data.train`, `data.evaluation` and `data.replay` by split; raises what `resolve` does."""
        return {
            "train": self.training_sources(data),
            "evaluation": self._split("evaluation", data.evaluation, "validation"),
            "replay": self.replay(data),
        }

    def training_sources(self, data: config.DataConfig) -> list[Source]:
        """The sources of `data.train`."""
        return self._split("train", data.train)

    def replay(self, data: config.DataConfig) -> list[Source]:
        """The sources of `data.replay`."""
        return self._split("replay", data.replay)

    def resolve(self, dataset: config.DatasetConfig, field: str, default_split: str = "train") -> Source:
        """Find the dataset and bring it to this machine.

        Raises DataError if it does not exist, ConfigurationError or StorageError if it cannot be fetched; each message begins
        with `field`.
        """
        columns = dataset.columns.names(self.objective.roles_of(dataset.task))
        conversations = self._conversation_reader(dataset)
        options = ReadOptions(
            columns=None if conversations else tuple(dict.fromkeys(columns.values())), csv=dataset.csv, text=dataset.text,
            json_records=dataset.records, encoding=dataset.encoding,
        )  # fmt: skip
        records = self._find_records(dataset, options, columns, field, default_split)
        return RowSource(records, columns, dataset.task, conversations)

    def _conversation_reader(self, dataset: config.DatasetConfig) -> ConversationReader | None:
        objective = self.objective.config
        if not isinstance(objective, ChatObjectiveConfig):
            return None
        conversation = dataset.conversation or ConversationConfig()
        if conversation.preset == "Auto":
            conversation = conversation.model_copy(update={"preset": objective.default_preset})
        return ConversationReader(ShapeFinder(dataset.columns, conversation, objective.answers))

    def _find_records(
        self, dataset: config.DatasetConfig, options: ReadOptions, roles: Collection[str], field: str, default_split: str
    ) -> RecordSource:  # fmt: skip
        if HUB.matches(dataset.source):
            return hub_source.load_source(
                dataset, options, field=field, cache=self.cache, credentials=self.credentials, default_split=default_split
            )
        return file_source.find_source(
            dataset,
            options,
            roles=roles,
            field=field,
            cache=self.cache,
            credentials=self.credentials,
            default_split=default_split,
        )

    def _split(self, split: str, datasets: Sequence[config.DatasetConfig], default_split: str = "train") -> list[Source]:
        return [
            self._resolve_once(dataset, f"spec.data.{split}[{index}].source", default_split)
            for index, dataset in enumerate(datasets)
        ]

    def _resolve_once(self, dataset: config.DatasetConfig, field_path: str, default_split: str) -> Source:
        resolved = self._resolved.get(field_path)
        if resolved is not None and resolved[0] == dataset:
            return resolved[1]
        source = self.resolve(dataset, field_path, default_split)
        if self.limit is not None:
            source = first_rows(source, self.limit)
        self._resolved[field_path] = (dataset, source)
        return source
