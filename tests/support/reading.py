"""Reads the rows of a source as a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_trainer import config
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.base import Source
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.storage.base import Credentials

FIELD = "spec.data.train[0].source"


def resolve(source: str, objective: str = "CausalLM", default_split: str = "train", **settings: Any) -> Source:
    """The source at a path or URI, with settings of `data.train`."""
    uri = source if "://" in source else f"file://{source}"
    dataset = config.DatasetConfig.model_validate({"source": uri, **settings})
    spec = config.ObjectiveSpec.model_validate({"type": objective})
    return SourceResolver(spec, Path("cache"), Credentials()).resolve(dataset, FIELD, default_split)


def read_rows(source: str, objective: str = "CausalLM", **settings: Any) -> list[Row]:
    """The rows of a source."""
    return list(resolve(source, objective, **settings).rows())


def read_texts(source: str, **settings: Any) -> list[tuple[str, str]]:
    """The text and the origin of each row."""
    return [(row.values["text"], row.origin) for row in read_rows(source, **settings)]


def write(name: str, content: str | bytes) -> None:
    """Write a file with its folders."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
