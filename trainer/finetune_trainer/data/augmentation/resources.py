"""Files and models that augmentation needs, resolved to this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune_trainer import config
from finetune_trainer.data.sources.files import File, files_below, find_files
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.protocol.outcome import DataError
from finetune_trainer.storage.download import localize_model

FIELD = "spec.data.augmentation"


class AugmentationResources(NamedTuple):
    """The file of synonyms, and the folders of the two translation models, [forward, back]."""

    synonyms: File | None = None
    translators: Sequence[Path] = ()

    @property
    def identity(self) -> Any:
        """A JSON value that changes when the copies may change."""
        models = []
        for folder in self.translators:
            models.append([file.identity for file in files_below(folder)])
        return [self.synonyms and self.synonyms.identity, *models]


def resolve_resources(augmentation: config.AugmentationConfig | None, resolver: SourceResolver) -> AugmentationResources:
    """Bring the resources of `data.augmentation` to this machine.

    Raises DataError for a missing file, and ConfigurationError or StorageError for one that cannot be fetched.
    """
    if augmentation is None:
        return AugmentationResources()
    synonyms = _find_synonyms(augmentation.synonyms, resolver) if augmentation.synonyms else None
    back_translation = augmentation.back_translation
    if back_translation is None:
        return AugmentationResources(synonyms)
    forward = _fetch_translator("forward", back_translation.forward, resolver)
    back = _fetch_translator("back", back_translation.back, resolver)
    return AugmentationResources(synonyms, (forward, back))


def _find_synonyms(synonyms: config.SynonymsConfig, resolver: SourceResolver) -> File:
    field = f"{FIELD}.synonyms.source"
    files = find_files(
        synonyms.source, suffixes=(".json",), field=field, cache=resolver.cache, credentials=resolver.credentials,
        secret=synonyms.credentials,
    ).files  # fmt: skip
    if len(files) > 1:
        raise DataError(f"{field}: {synonyms.source} means {len(files)} files: name one of them")
    return files[0]


def _fetch_translator(direction: str, translator: config.TranslatorConfig, resolver: SourceResolver) -> Path:
    return localize_model(
        translator.source, cache=resolver.cache, credentials=resolver.credentials, secret=translator.credentials,
        revision=translator.revision, field=f"{FIELD}.backTranslation.{direction}.source",
    )  # fmt: skip
