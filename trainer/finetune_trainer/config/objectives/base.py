"""What every objective's options say beside its fields: the columns that its rows need, and what may be done with a row."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.base import Section


class Options(Section):
    """Base of every objective's options. The first of the columns is what a row is about: it decides who is held out.

    The first sentence of a class's docstring is what the reference says of the objective.
    """

    columns: ClassVar[tuple[str, ...]] = ("text",)
    optional_columns: ClassVar[tuple[str, ...]] = ()
    divisible: ClassVar[bool] = False
    """Whether a row of data is text like any other, of which a part is as good; else it is one example."""
    packable: ClassVar[bool] = False
    """Whether several examples may share a sequence."""
    shares_encoder: ClassVar[bool] = False
    """Whether it can be one of several tasks that share an encoder."""
    continues: ClassVar[bool] = False
    """Whether the model continues a prompt, so that it can be asked for samples."""

    @property
    def roles(self) -> tuple[str, ...]:
        """All columns that are read, the one that a row is about first."""
        return self.columns + self.optional_columns

    framed: ClassVar[bool] = True
    """Whether a tokenizer that is trained for it puts a token before and one after each text, as BERT's does."""
