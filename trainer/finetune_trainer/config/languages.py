"""The languages of a multilingual translation model."""

from __future__ import annotations

from pydantic import Field

from finetune_trainer.config.base import Section


class LanguagesConfig(Section):
    """The source and target language of models whose tokenizer adds a language token to each text, by the tokenizer's codes:
    eng_Latn for NLLB, en for M2M100, en_XX for mBART.
    """

    source: str = Field(min_length=1, max_length=32, description="Language of the input texts.")
    target: str = Field(min_length=1, max_length=32, description="Language of the generated texts.")
