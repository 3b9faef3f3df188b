"""What the model learns from."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section


class Columns(Section):
    """Which column of a row holds what."""

    text: str = Field("text", min_length=1, max_length=256, description="The text to learn.")


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


class Data(Section):
    """Training and evaluation data, and how documents become sequences of tokens."""

    train: list[Dataset] = Field(min_length=1, max_length=64)
    evaluation: list[Dataset] = Field(default_factory=list, max_length=64)
    evaluation_fraction: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of the training rows held out for evaluation, chosen by a hash of the row.",
    )
    max_length: int = Field(1024, ge=8, le=1_048_576, description="Tokens in one sequence.")
    packing: bool = Field(
        True,
        description="Fill each sequence with several documents, attention kept within each one; off: one document a "
        "sequence, padded.",
    )
    overlong: Literal["Split", "Truncate", "Drop"] = Field(
        "Split", description="What becomes of a document longer than maxLength."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "size(self.evaluation) == 0 || !has(self.evaluationFraction)",
            "evaluation data is given twice: keep either data.evaluation or data.evaluationFraction",
            "evaluationFraction",
        ),
    )
