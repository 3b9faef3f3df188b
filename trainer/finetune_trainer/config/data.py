"""What the model learns from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section

Column = Annotated[str, Field(min_length=1, max_length=256)]


class Columns(Section):
    """Which column of a row holds what; an objective reads those that it needs."""

    text: Column = Field("text", description="A text.")
    text_pair: Column | None = Field(None, description="A second text beside the first; only read when it is named here.")
    messages: Column = Field("messages", description="A conversation: a list of messages, each with a role and a content.")
    prompt: Column = Field("prompt", description="What is to be answered: a text or, for PreferenceTuning, a conversation too.")
    completion: Column = Field("completion", description="The answer to the prompt.")
    chosen: Column = Field("chosen", description="The better answer to the prompt: a text, or messages that follow it.")
    rejected: Column = Field("rejected", description="The worse answer.")
    label: Column = Field("label", description="A label, a list of labels or a number, as the objective asks for.")

    def names(self, roles: Iterable[str]) -> dict[str, str]:
        """The columns' names by role, without optional ones that the document does not name."""
        return {role: name for role in roles if (name := getattr(self, role)) is not None}


class Dataset(Section):
    """One source of rows: a file, a folder, a pattern with * and **, or a dataset of the hub."""

    source: ReadableURI
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    split: str | None = Field(
        None, max_length=128, description="Split of an hf:// source; train for data.train, else validation, by default."
    )
    credentials: SecretName | None = None
    format: Literal["Auto", "JSONLines", "CSV", "Parquet", "Text"] = Field(
        "Auto", description="Auto goes by the file's suffix. Text makes one row of each file."
    )
    columns: Columns = Columns()
    task: str | None = Field(None, max_length=64, description="With objective.tasks, the task whose rows these are.")


class Data(Section):
    """Training and evaluation data, and how documents become sequences of tokens."""

    train: list[Dataset] = Field(min_length=1, max_length=64)
    evaluation: list[Dataset] = Field(default_factory=list, max_length=64)
    earlier: list[Dataset] = Field(
        default_factory=list, max_length=64, description="What the model learnt before; training.forgetting.elastic reads it."
    )
    evaluation_fraction: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of the training rows held out for evaluation, chosen by a hash of the row.",
    )
    max_length: int = Field(1024, ge=8, le=1_048_576, description="Tokens in one sequence.")
    packing: bool | None = Field(
        None,
        description="Fill each sequence with several documents, attention kept within each one; off: one document a "
        "sequence, padded. By default on where the objective can.",
    )
    overlong: Literal["Split", "Truncate", "Drop"] | None = Field(
        None,
        description="What becomes of a document longer than maxLength; by default Split where the objective can, or Truncate.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "size(self.evaluation) == 0 || !has(self.evaluationFraction)",
            "evaluation data is given twice: keep either data.evaluation or data.evaluationFraction",
            "evaluationFraction",
        ),
    )
