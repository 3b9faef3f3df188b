"""Records of the data's sources, in an order that is the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from finetune_trainer import config
from finetune_trainer.config.storage_schemes import HUB
from finetune_trainer.data.records.row import Row, make_row, missing_column_error
from finetune_trainer.data.sources.base import Source
from finetune_trainer.data.sources.files import File, all_of, find
from finetune_trainer.data.sources.formats import IMAGE_SUFFIXES, format_of, suffixes_of
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import localize_model
from finetune_trainer.storage.hub import explain_hub_errors


@dataclass(frozen=True)
class FileSource:
    """Files of one `config.Dataset`."""

    format: str
    names: Mapping[str, str]
    files: Sequence[File]
    task: str | None = None
    beside: Sequence[File] = ()
    """Files that rows may name."""

    @property
    def identity(self) -> Any:
        files = [[file.identity for file in some] for some in (self.files, self.beside)]
        return [self.format, dict(self.names), *files, self.task]

    def rows(self) -> Iterator[Row]:
        for file in self.files:
            for found in format_of(file, self.format).read(file, self.names):
                folder = found.folder or file.path.parent if "image" in self.names else None
                yield found._replace(task=self.task, folder=folder)


@dataclass(frozen=True)
class HubSource:
    """One split of a dataset of the hub, already on this machine as a `datasets.Dataset`."""

    name: str
    names: Mapping[str, str]
    dataset: Any
    task: str | None = None

    @property
    def identity(self) -> Any:
        return [self.name, dict(self.names), self.dataset._fingerprint, self.task]

    def rows(self) -> Iterator[Row]:
        for role, column in self.names.items():
            if column not in self.dataset.column_names:
                raise missing_column_error(role, column, self.dataset.column_names, self.name)
        chosen = self.dataset.select_columns(list(dict.fromkeys(self.names.values())))
        if "image" in self.names:
            chosen = _undecoded(chosen, self.names["image"])
        labels = {column: names for column, feature in chosen.features.items() if (names := _label_names(feature))}
        for number, row in enumerate(chosen, start=1):
            named = {column: _named(row[column], names) for column, names in labels.items()}
            yield make_row({**row, **named}, self.names, f"{self.name}:{number}")._replace(task=self.task)


def _label_names(feature: Any) -> list[str] | None:
    """What the numbers of a column of labels, or of lists of labels, stand for."""
    import datasets

    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    # -1 is the label of rows that have none.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _undecoded(rows: Any, column: str) -> Any:
    """The rows with images as bytes or paths: what cannot be decoded is then for us to explain."""
    import datasets

    is_image = isinstance(rows.features[column], datasets.Image)
    return rows.cast_column(column, datasets.Image(decode=False)) if is_image else rows


class Materials(NamedTuple):
    """What altered copies are made with, on this machine: a file of words, and the folders of two models, forward and back."""

    synonyms: File | None = None
    translators: Sequence[Path] = ()

    @property
    def identity(self) -> Any:
        """What changes when the copies may; JSON."""
        models = [[file.identity for file in all_of(folder)] for folder in self.translators]
        return [self.synonyms and self.synonyms.identity, *models]


@dataclass(frozen=True)
class SourceResolver:
    """How this run reads its data: the columns that its objective asks for, where to copy files to, whose keys open them."""

    objective: config.ObjectiveSpec
    cache: Path
    credentials: Credentials

    def sources(self, data: config.DataConfig) -> dict[str, list[Source]]:
        """The resolved datasets of `data.train` and `data.evaluation`, by side; raises what `resolve` does."""
        return {"train": self._side("train", data.train), "evaluation": self._side("evaluation", data.evaluation, "validation")}

    def training_sources(self, data: config.DataConfig) -> list[Source]:
        """The resolved datasets of `data.train`."""
        return self._side("train", data.train)

    def replay(self, data: config.DataConfig) -> list[Source]:
        """The resolved datasets of `data.replay`."""
        return self._side("replay", data.replay)

    def materials(self, data: config.DataConfig) -> Materials:
        """What `data.augmentation` names, brought to this machine; raises what `sources.localize` does."""
        named = data.augmentation
        if named is None:
            return Materials()
        synonyms = self._synonyms(named.synonyms) if named.synonyms else None
        if (both := named.back_translation) is None:
            return Materials(synonyms)
        return Materials(synonyms, (self._translator("forward", both.forward), self._translator("back", both.back)))

    def _translator(self, way: str, named: config.TranslatorConfig) -> Path:
        return localize_model(
            named.source, cache=self.cache, credentials=self.credentials, secret=named.credentials, revision=named.revision,
            field=f"spec.data.augmentation.backTranslation.{way}.source",
        )  # fmt: skip

    def _synonyms(self, named: config.SynonymsConfig) -> File:
        field = "spec.data.augmentation.synonyms.source"
        files = find(
            named.source, suffixes=(".json",), field=field, cache=self.cache, credentials=self.credentials,
            secret=named.credentials,
        ).files  # fmt: skip
        if len(files) > 1:
            raise DataError(f"{field}: {named.source} means {len(files)} files: name one of them")
        return files[0]

    def resolve(self, dataset: config.DatasetConfig, field: str, default_split: str = "train") -> Source:
        """Find what the dataset names and bring it to this machine.

        Raises DataError when nothing is there, ConfigurationError or StorageError when it cannot be fetched; all begin with
        `field`.
        """
        names = dataset.columns.names(self.objective.roles_of(dataset.task))
        if HUB.matches(dataset.source):
            return self._load_from_hub(dataset, names, field, default_split)
        files, beside = find(
            dataset.source, suffixes=suffixes_of(dataset.format, names), beside=IMAGE_SUFFIXES if "image" in names else (),
            field=field, cache=self.cache, credentials=self.credentials, secret=dataset.credentials,
        )  # fmt: skip
        images = [file for file in files if file.name.lower().endswith(IMAGE_SUFFIXES)]
        if dataset.format == "Auto" and 0 < len(images) < len(files):  # tables, which name the images in the same folder
            files, beside = [file for file in files if not file.name.lower().endswith(IMAGE_SUFFIXES)], [*beside, *images]
        return FileSource(dataset.format, names, files, dataset.task, beside)

    def _side(self, side: str, datasets: Sequence[config.DatasetConfig], default_split: str = "train") -> list[Source]:
        return [
            self.resolve(dataset, f"spec.data.{side}[{index}].source", default_split) for index, dataset in enumerate(datasets)
        ]

    def _load_from_hub(
        self, dataset: config.DatasetConfig, names: Mapping[str, str], field: str, default_split: str
    ) -> HubSource:
        import datasets  # takes seconds to import, which runs on files need not spend

        split, section = dataset.split or default_split, field.rpartition(".")[0]
        token = self.credentials.read(dataset.credentials, f"{section}.credentials").get("HF_TOKEN")
        with explain_hub_errors(dataset.source, field):
            try:
                rows = datasets.load_dataset(
                    HUB.path(dataset.source), split=split, revision=dataset.revision, token=token,
                    cache_dir=str(self.cache / "hub-datasets"),
                )  # fmt: skip
            except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError) as error:
                raise ConfigurationError(
                    f"{field}: the hub has no {dataset.source} that may be read: correct the name, or name a Secret with "
                    f"HF_TOKEN in {section}.credentials"
                ) from error
            except ValueError as error:
                text = str(error).strip().split("\n", 1)[0]
                raise ConfigurationError(f"{field}: cannot load split {split} of {dataset.source} ({text})") from error
        return HubSource(f"{dataset.source}[{split}]", names, rows, dataset.task)
