"""Options for TokenClassification."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig


class TokenClassificationConfig(ObjectiveConfig):
    """Tag each word of a text: named entities, parts of speech."""

    columns: ClassVar[tuple[str, ...]] = ("tokens", "tags")
    shares_encoder: ClassVar[bool] = True
    smoothable: ClassVar[bool] = True

    labels: list[str] = Field(
        default_factory=list,
        max_length=10_000,
        description="All tags in their order; found in the training data when empty. Numbers in the data count them from 0.",
    )
