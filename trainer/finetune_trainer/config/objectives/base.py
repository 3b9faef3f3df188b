"""The base of the objectives' configs: the columns of their rows, and what they support."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from finetune_trainer.config.base import Section

Processor = Literal["Tokenizer", "ImageProcessor"]


class ReportedMetrics(NamedTuple):
    """Metrics that an objective reports, always or under a condition."""

    names: tuple[str, ...]
    """Their names; [LABEL] and [TYPE] stand for the name of a label."""
    needs: str = ""
    """What they need, in words."""
    condition: str = ""
    """What they need as a CEL expression over the objective's `{section}`; empty for metrics that are always reported."""
    by_default: bool = True
    """Whether they are reported where the document has no such section."""


def always(*names: str) -> tuple[ReportedMetrics, ...]:
    """Metrics that every evaluation of an objective reports, or may report."""
    return (ReportedMetrics(names),)


class ObjectiveConfig(Section):
    """The config of an objective.

    The first sentence of a subclass's docstring describes the objective in the reference.
    """

    columns: ClassVar[tuple[str, ...]] = ("text",)
    """Required columns. The first is the subject of a row: rows with the same subject are held out together."""
    optional_columns: ClassVar[tuple[str, ...]] = ()
    processor: ClassVar[Processor] = "Tokenizer"
    """Turns a row into the model's inputs."""
    splittable: ClassVar[bool] = False
    """Whether the parts of a row can be examples of their own, so that long rows can be split."""
    has_labels: ClassVar[bool] = False
    """Whether each row may have one label, so that rows of rare labels can be repeated."""
    packable: ClassVar[bool] = False
    """Whether several examples may share a sequence."""
    supports_prompt_tuning: ClassVar[bool] = False
    """Whether virtual tokens before a text can train the model, which must read the text from its start to its end."""
    compares_rows: ClassVar[bool] = False
    """Whether the loss compares a row with the other rows of its step, so that a single row has no loss."""
    shares_encoder: ClassVar[bool] = False
    """Whether it can be one of several tasks that share an encoder."""
    supports_label_smoothing: ClassVar[bool] = False
    """Whether its loss is the cross entropy of one label among several, to which training.labelSmoothing applies."""
    supports_few_shot: ClassVar[bool] = False
    """Whether solved rows can precede a row in its prompt, so that a model can be evaluated few-shot."""
    generates_text: ClassVar[bool] = False
    """Whether the model continues a prompt, so that samples can be generated."""
    adds_special_tokens: ClassVar[bool] = True
    """Whether a tokenizer that is trained for it adds a token before and one after each text, as BERT's does."""

    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = ()
    """All metrics that an evaluation may report; evaluation.metric has to be one of them."""

    @property
    def roles(self) -> tuple[str, ...]:
        """All columns that are read, the subject first."""
        return self.columns + self.optional_columns

    def sentinel_count(self, max_length: int) -> int:
        """The number of sentinel tokens (for hidden spans) that a tokenizer needs that is trained for it."""
        return 0
