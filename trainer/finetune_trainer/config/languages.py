"""The languages of a model that translates between many."""

from __future__ import annotations

from pydantic import Field

from finetune_trainer.config.base import Section


class LanguagesConfig(Section):
    """For models of many languages whose tokenizer writes a language's token beside each text, by its codes: NLLB's are such as
    eng_Latn, M2M100's such as en, mBART's such as en_XX.
    """

    source: str = Field(min_length=1, max_length=32, description="That of the texts to read.")
    target: str = Field(min_length=1, max_length=32, description="That of the texts to write.")
