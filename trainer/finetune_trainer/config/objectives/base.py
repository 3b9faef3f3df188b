"""What every objective's options say beside its fields: the columns that its rows need, and what may be done with a row."""

from __future__ import annotations

from typing import ClassVar, Literal

from finetune_trainer.config.base import Section

Processor = Literal["Tokenizer", "ImageProcessor"]


class ObjectiveConfig(Section):
    """Base of every objective's options. The first of the columns is what a row is about: it decides who is held out.

    The first sentence of a class's docstring is what the reference says of the objective.
    """

    columns: ClassVar[tuple[str, ...]] = ("text",)
    optional_columns: ClassVar[tuple[str, ...]] = ()
    processor: ClassVar[Processor] = "Tokenizer"
    """What makes a model's inputs of a row."""
    divisible: ClassVar[bool] = False
    """Whether a row of data is text like any other, of which a part is as good; else it is one example."""
    labelled: ClassVar[bool] = False
    """Whether each row may have one label, so that rows of rare labels can be shown more often."""
    packable: ClassVar[bool] = False
    """Whether several examples may share a sequence."""
    promptable: ClassVar[bool] = False
    """Whether virtual tokens before a text can teach it, which then must be read from its beginning to its end."""
    compares: ClassVar[bool] = False
    """Whether a row is told from the others of its step, so that one alone teaches nothing."""
    shares_encoder: ClassVar[bool] = False
    """Whether it can be one of several tasks that share an encoder."""
    smoothable: ClassVar[bool] = False
    """Whether its loss is the cross entropy of one label among several, which training.labelSmoothing can soften."""
    in_context: ClassVar[bool] = False
    """Whether solved rows can stand before the one to solve, so that a model can be asked few-shot."""
    continues: ClassVar[bool] = False
    """Whether the model continues a prompt, so that it can be asked for samples."""
    framed: ClassVar[bool] = True
    """Whether a tokenizer that is trained for it puts a token before and one after each text, as BERT's does."""

    @property
    def roles(self) -> tuple[str, ...]:
        """All columns that are read, the one that a row is about first."""
        return self.columns + self.optional_columns

    def sentinels(self, max_length: int) -> int:
        """How many tokens that stand for hidden spans a tokenizer needs that is trained for it."""
        return 0
