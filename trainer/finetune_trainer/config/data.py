"""What the model learns from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.augmentation import AugmentationConfig
from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section
from finetune_trainer.config.data_checks import DataChecksConfig

Column = Annotated[str, Field(min_length=1, max_length=256)]


class ColumnsConfig(Section):
    """Which column of a row holds what; an objective reads those that it needs."""

    text: Column = Field("text", description="A text.")
    text_pair: Column | None = Field(None, description="A second text beside the first; only read when it is named here.")
    negative: Column | None = Field(
        None, description="A text that does not go with the first, though it looks so; null or empty where a row has none."
    )
    image: Column = Field(
        "image",
        description="An image: a path relative to the file that the row stands in, base64 or a data URI, or bytes in Parquet.",
    )
    messages: Column = Field("messages", description="A conversation: a list of messages, each with a role and a content.")
    prompt: Column = Field("prompt", description="What is to be answered: a text or, for PreferenceTuning, a conversation too.")
    completion: Column = Field("completion", description="The answer to the prompt.")
    chosen: Column = Field("chosen", description="The better answer to the prompt: a text, or messages that follow it.")
    rejected: Column = Field("rejected", description="The worse answer.")
    label: Column = Field("label", description="A label, a list of labels or a number, as the objective asks for.")
    tokens: Column = Field("tokens", description="A text as the list of its words.")
    tags: Column = Field("tags", description="A label, or its number, for each of the words.")
    context: Column = Field("context", description="A text that a question is about.")
    question: Column = Field("question", description="A question.")
    answers: Column = Field(
        "answers",
        description='Words of the context and where they begin, counted in characters from 0: SQuAD\'s {"text": [...], '
        '"answer_start": [...]} or a list of {"text": ..., "start": ...}; empty where there is no answer.',
    )
    target: Column = Field("target", description="The text to write after reading the first.")

    def names(self, roles: Iterable[str]) -> dict[str, str]:
        """The columns' names by role, without optional ones that the document does not name."""
        return {role: name for role in roles if (name := getattr(self, role)) is not None}


class DatasetConfig(Section):
    """One source of rows: a file, a folder, a pattern with * and **, or a dataset of the hub."""

    source: ReadableURI
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    split: str | None = Field(
        None, max_length=128, description="Split of an hf:// source; train for data.train, else validation, by default."
    )
    credentials: SecretName | None = None
    format: Literal["Auto", "JSONLines", "CSV", "Parquet", "Text", "ImageFolder"] = Field(
        "Auto",
        description="Auto goes by the file's suffix. Text makes one row of each file; so does ImageFolder of each image, whose "
        "label is the sub-folder that it is in.",
    )
    columns: ColumnsConfig = ColumnsConfig()
    weight: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="In data.train, its share of the sequences that are learnt from, relative to the other sources' weights; "
        "an epoch keeps its length, and what the source holds is repeated or sampled as that needs. Without weights each "
        "sequence is seen once an epoch.",
    )
    task: str | None = Field(None, max_length=32, description="With objective.tasks, the task whose rows these are.")


class FoldsConfig(Section):
    """Cross-validation: one job for each fold learns from the others and is evaluated on that one."""

    count: int = Field(ge=2, le=100, description="Folds, of about the same size; a hash of the row says which one it is in.")
    hold: int = Field(0, ge=0, le=99, description="The fold to evaluate on, counted from 0.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.hold < self.count", "there is no such fold: set hold to one of 0 to count - 1", "hold"),
    )


class DataConfig(Section):
    """Training and evaluation data, and how documents become sequences of tokens."""

    train: list[DatasetConfig] = Field(min_length=1, max_length=64)
    evaluation: list[DatasetConfig] = Field(default_factory=list, max_length=64)
    replay: list[DatasetConfig] = Field(
        default_factory=list,
        max_length=64,
        description="What the model learnt before: training.continualLearning.ewc measures on it, replay learns from it.",
    )
    evaluation_fraction: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of the training rows held out for evaluation, chosen by a hash of the row.",
    )
    folds: FoldsConfig | None = None
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

    resample: Literal["None", "Balanced"] = Field(
        "None", description="Balanced shows each label's rows equally often: rare ones are repeated, frequent ones sampled."
    )
    checks: DataChecksConfig = DataChecksConfig()
    augmentation: AugmentationConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(size(self.evaluation) > 0 ? 1 : 0) + (has(self.evaluationFraction) ? 1 : 0) + (has(self.folds) ? 1 : 0) <= 1",
            "evaluation data is given twice: keep one of data.evaluation, data.evaluationFraction and data.folds",
            "evaluationFraction",
        ),
        Rule(
            "self.train.all(one, has(one.weight)) || self.train.all(one, !has(one.weight))",
            "some sources have a weight and some have none: give each of data.train a weight, or none",
            "train",
        ),
        Rule(
            "self.evaluation.all(one, !has(one.weight)) && self.replay.all(one, !has(one.weight))",
            "a weight says how often rows are learnt from: remove it from data that is not in data.train",
            "evaluation",
        ),
        Rule(
            "self.resample == 'None' || self.train.all(one, !has(one.weight))",
            "sources and labels cannot both say how often a row is seen: remove the weights of data.train, or data.resample",
            "resample",
        ),
    )
