"""Augmented copies of training rows."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section
from finetune_trainer.config.languages import LanguagesConfig

WORDS_CHANGE = "has(self.synonyms) || self.deletion > 0.0 || self.swap > 0.0 || self.noise > 0.0"


class SynonymsConfig(Section):
    """Replacement of words by synonyms."""

    source: ReadableURI
    credentials: SecretName | None = None
    share: float = Field(
        0.1, gt=0, le=1, description="Share of the words that are replaced, if the file lists synonyms for them."
    )


class TranslatorConfig(Section):
    """An encoder-decoder that translates, loaded with transformers' AutoModelForSeq2SeqLM."""

    source: ReadableURI
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    credentials: SecretName | None = None
    prefix: str = Field(
        "",
        max_length=256,
        description="Text before each input: 'translate English to German: ' for T5, '>>deu<< ' for a Marian model of several "
        "languages.",
    )
    languages: LanguagesConfig | None = None


class BackTranslationConfig(Section):
    """Paraphrase by translation into another language and back (Sennrich et al. 2016, arXiv:1511.06709).

    Translation runs on the GPU if there is one. A text stays unchanged if it or its translation is longer than maxLength, or if
    a translation is empty.
    """

    forward: TranslatorConfig
    back: TranslatorConfig
    temperature: float = Field(
        0.0,
        ge=0,
        le=2,
        description="0 is greedy decoding, which gives a text one translation. Above 0, tokens are sampled from the model's "
        "distribution (Edunov et al. 2018, arXiv:1808.09381), which is unscaled at 1, and every copy differs.",
    )
    max_length: int = Field(
        256, ge=8, le=16_384, description="Maximum tokens of a text, with its prefix, and of its translation."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Texts in a batch; it does not affect the translations.")


class AugmentationConfig(Section):
    """Copies of each training row: back-translation, then random changes of words and characters (EDA, Wei & Zou 2019,
    arXiv:1901.11196).

    Copies are made when the data is prepared; each epoch contains the rows and all of their copies.
    """

    copies: int = Field(1, ge=1, le=64, description="Augmented copies of each row, in addition to the row.")
    synonyms: SynonymsConfig | None = Field(
        None, description="A JSON file with an object that maps lower-case words to lists of synonyms."
    )
    back_translation: BackTranslationConfig | None = None
    deletion: float = Field(0.0, ge=0, le=0.9, description="Share of the words that are deleted.")
    swap: float = Field(0.0, ge=0, le=1, description="Share of the words that are swapped with another word of the text.")
    noise: float = Field(
        0.0, ge=0, le=0.5, description="Share of the letters that are deleted, doubled, or swapped with the next one."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"has(self.backTranslation) || {WORDS_CHANGE}",
            "the copies would equal their rows: set backTranslation or synonyms, or deletion, swap or noise above 0",
            "copies",
        ),
        Rule(
            f"self.copies == 1 || !has(self.backTranslation) || self.backTranslation.temperature > 0.0 || {WORDS_CHANGE}",
            "without sampling a text has one translation, so that its copies would be equal: set "
            "backTranslation.temperature above 0, or copies: 1",
            "copies",
        ),
    )
