"""Altered copies of training rows."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section


class Synonyms(Section):
    """Words that may stand for each other."""

    source: ReadableURI
    credentials: SecretName | None = None
    share: float = Field(0.1, gt=0, le=1, description="Share of the words that are replaced, where the file knows others.")


class Augmentation(Section):
    """Copies of each training row with words and characters changed at random (EDA, Wei & Zou 2019, arXiv:1901.11196).

    They are made when the data is prepared, and each epoch shows the rows and all of their copies.
    """

    copies: int = Field(1, ge=1, le=64, description="Altered copies of each row, beside the row itself.")
    synonyms: Synonyms | None = Field(
        None, description="A JSON file with an object of lower-case words, each with a list of words that may stand for it."
    )
    deletion: float = Field(0.0, ge=0, le=0.9, description="Share of the words that are left out.")
    swap: float = Field(0.0, ge=0, le=1, description="Share of the words that change places with another of the text.")
    noise: float = Field(
        0.0, ge=0, le=0.5, description="Share of the letters that are left out, doubled, or change places with the next."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.synonyms) || self.deletion > 0.0 || self.swap > 0.0 || self.noise > 0.0",
            "the copies would be the same as their rows: give synonyms, or set deletion, swap or noise above 0",
            "copies",
        ),
    )
