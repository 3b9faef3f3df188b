"""Altered copies of training rows."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section
from finetune_trainer.config.languages import LanguagesConfig

WORDS_CHANGE = "has(self.synonyms) || self.deletion > 0.0 || self.swap > 0.0 || self.noise > 0.0"


class SynonymsConfig(Section):
    """Words that may stand for each other."""

    source: ReadableURI
    credentials: SecretName | None = None
    share: float = Field(0.1, gt=0, le=1, description="Share of the words that are replaced, where the file knows others.")


class TranslatorConfig(Section):
    """An encoder-decoder that translates, by transformers' AutoModelForSeq2SeqLM."""

    source: ReadableURI
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    credentials: SecretName | None = None
    prefix: str = Field(
        "",
        max_length=256,
        description="What it reads before each text: 'translate English to German: ' for T5, '>>deu<< ' for a Marian model of "
        "several languages.",
    )
    languages: LanguagesConfig | None = None


class BackTranslationConfig(Section):
    """Each copy is a text that one model translated and another translated back (Sennrich et al. 2016, arXiv:1511.06709).

    It is done on the GPU if there is one. A text keeps its own words if it or its translation is longer than maxLength, or if
    nothing is left of that.
    """

    forward: TranslatorConfig
    back: TranslatorConfig
    temperature: float = Field(
        0.0,
        ge=0,
        le=2,
        description="0 writes the likeliest token at each place, which gives a text one translation only; above it tokens are "
        "drawn from the model's distribution, at 1 as it is (Edunov et al. 2018, arXiv:1808.09381), and each copy is another.",
    )
    max_length: int = Field(256, ge=8, le=16_384, description="Tokens of a text, its prefix included, and of its translation.")
    batch_size: int = Field(32, ge=1, le=4096, description="Texts that are translated at once; it changes no translation.")


class AugmentationConfig(Section):
    """Copies of each training row: translated there and back, then with words and characters changed at random (EDA, Wei & Zou
    2019, arXiv:1901.11196).

    They are made when the data is prepared, and each epoch shows the rows and all of their copies.
    """

    copies: int = Field(1, ge=1, le=64, description="Altered copies of each row, beside the row itself.")
    synonyms: SynonymsConfig | None = Field(
        None, description="A JSON file with an object of lower-case words, each with a list of words that may stand for it."
    )
    back_translation: BackTranslationConfig | None = None
    deletion: float = Field(0.0, ge=0, le=0.9, description="Share of the words that are left out.")
    swap: float = Field(0.0, ge=0, le=1, description="Share of the words that change places with another of the text.")
    noise: float = Field(
        0.0, ge=0, le=0.5, description="Share of the letters that are left out, doubled, or change places with the next."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"has(self.backTranslation) || {WORDS_CHANGE}",
            "the copies would be the same as their rows: give backTranslation or synonyms, or set deletion, swap or "
            "noise above 0",
            "copies",
        ),
        Rule(
            f"self.copies == 1 || !has(self.backTranslation) || self.backTranslation.temperature > 0.0 || {WORDS_CHANGE}",
            "without sampling a text has one translation, so that its copies would be the same: set "
            "backTranslation.temperature above 0, or copies: 1",
            "copies",
        ),
    )
