"""Every address in a document, with the Secret that opens it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from finetune_trainer.config import TrainSpec

CLAIM_SCHEME = "pvc://"


class Address(NamedTuple):
    """`where` is the path of the section that holds it; `writes` is false for what is only read."""

    where: str
    uri: str | None
    credentials: str | None
    writes: bool = False


def addresses(spec: TrainSpec) -> Iterator[Address]:
    """In the order of the document."""
    yield Address("spec.model", spec.model.source, spec.model.credentials)
    if (tokenizer := spec.model.tokenizer) is not None:
        yield Address("spec.model.tokenizer", tokenizer.source, tokenizer.credentials)
    for name in ("train", "evaluation", "earlier"):
        for index, dataset in enumerate(getattr(spec.data, name)):
            yield Address(f"spec.data.{name}[{index}]", dataset.source, dataset.credentials)
    if (augmentation := spec.data.augmentation) is not None:
        if (synonyms := augmentation.synonyms) is not None:
            yield Address("spec.data.augmentation.synonyms", synonyms.source, synonyms.credentials)
        if (translation := augmentation.back_translation) is not None:
            for name in ("forward", "back"):
                translator = getattr(translation, name)
                yield Address(f"spec.data.augmentation.backTranslation.{name}", translator.source, translator.credentials)
    yield Address("spec.checkpoint", spec.checkpoint.storage, spec.checkpoint.credentials, writes=True)
    yield Address("spec.export", spec.export.storage, spec.export.credentials, writes=True)


def secrets(spec: TrainSpec) -> dict[str, str]:
    """Secret -> the first field that names it."""
    found: dict[str, str] = {}
    for address in addresses(spec):
        if address.credentials is not None:
            found.setdefault(address.credentials, f"{address.where}.credentials")
    return found


def claims(spec: TrainSpec) -> dict[str, bool]:
    """PersistentVolumeClaim -> whether the run writes to it."""
    found: dict[str, bool] = {}
    for address in addresses(spec):
        if address.uri is not None and address.uri.startswith(CLAIM_SCHEME):
            claim = address.uri.removeprefix(CLAIM_SCHEME).split("/", 1)[0]
            found[claim] = found.get(claim, False) or address.writes
    return found
