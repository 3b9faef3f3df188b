"""Training and evaluation data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.augmentation import AugmentationConfig
from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section
from finetune_trainer.config.conversation import ConversationConfig
from finetune_trainer.config.data_checks import DataChecksConfig
from finetune_trainer.config.file_reading import CSVConfig, Encoding, FormatName, TextConfig
from finetune_trainer.config.storage_schemes import HUB

Column = Annotated[str, Field(min_length=1, max_length=4096)]


class ColumnsConfig(Section):
    """What each role reads: a column, a path such as translation.en or answers[0].text, or a template of both in braces."""

    text: Column = Field("text", description="A text.")
    text_pair: Column | None = Field(None, description="A second text, paired with the first; read only if the column is set.")
    negative: Column | None = Field(
        None,
        description="A hard negative: a text that resembles the first but does not match it; null or empty if a row has none.",
    )
    image: Column = Field(
        "image",
        description="An image: a path relative to the row's file, base64 or a data URI, or bytes in Parquet.",
    )
    messages: Column = Field("messages", description="A conversation: a list of messages, each with a role and a content.")
    system: Column = Field("system", description="The system message of a conversation, where a row has one.")
    tools: Column = Field(
        "tools", description="The tools of a conversation, where a row has any: a list or JSON, handed to the chat template."
    )
    prompt: Column = Field("prompt", description="The prompt: a text or messages.")
    completion: Column = Field("completion", description="The answer to the prompt: a text or messages.")
    chosen: Column = Field("chosen", description="The better answer to the prompt: a text, or messages that follow it.")
    rejected: Column = Field("rejected", description="The worse answer.")
    label: Column = Field("label", description="A label, a list of labels or a number, depending on the objective.")
    tokens: Column = Field("tokens", description="A text as a list of words.")
    tags: Column = Field("tags", description="The label of each word, or its number.")
    context: Column = Field("context", description="The text that a question is about.")
    question: Column = Field("question", description="A question.")
    answers: Column = Field(
        "answers",
        description='Spans of the context with the offsets of their first characters, from 0: SQuAD\'s {"text": [...], '
        '"answer_start": [...]} or a list of {"text": ..., "start": ...}; empty where there is no answer.',
    )
    target: Column = Field("target", description="The text to generate from the first.")

    def names(self, roles: Iterable[str]) -> dict[str, str]:
        """The column of each role, without optional roles whose column is not set."""
        return {role: name for role in roles if (name := getattr(self, role)) is not None}


class DatasetConfig(Section):
    """One source of rows: a file, a folder, a pattern with * and **, or a dataset of the hub."""

    source: ReadableURI
    subset: str | None = Field(
        None, min_length=1, max_length=128, description="Configuration of an hf:// source, such as sst2."
    )
    data_files: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default_factory=list,
        max_length=64,
        description="The files of an hf:// source to read, by path or pattern, instead of those that its splits name.",
    )
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    split: str | None = Field(
        None,
        max_length=128,
        description="Split of an hf:// source, or of a folder whose folders or files are named train, validation and test. By "
        "default train for data.train and data.replay, and validation for data.evaluation.",
    )
    credentials: SecretName | None = None
    format: FormatName = Field(
        "Auto",
        description="Auto uses the file's suffix. ImageFolder makes each image one row, labeled with its sub-folder.",
    )
    encoding: Encoding | None = None
    csv: CSVConfig = CSVConfig()
    text: TextConfig = TextConfig()
    records: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="The path of the rows in a JSON document, such as data or result.rows; needed if it holds several lists of "
        "objects.",
    )
    columns: ColumnsConfig = ColumnsConfig()
    conversation: ConversationConfig | None = None
    weight: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="In data.train, the source's share of the training sequences, relative to the other sources' weights. An "
        "epoch keeps its length; the source's sequences are repeated or sampled to fill the share. Without weights each "
        "sequence is seen once an epoch.",
    )
    task: str | None = Field(None, max_length=32, description="With objective.tasks, the task that the rows belong to.")

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        Rule(
            f"{is_absent} || self.source.startsWith('{HUB.prefix}')",
            f"only a dataset of the hub has {field}: remove {field}, or begin source with {HUB.prefix}",
            field,
        )
        for field, is_absent in (("subset", "!has(self.subset)"), ("dataFiles", "size(self.dataFiles) == 0"))
    )


class FoldsConfig(Section):
    """Cross-validation: one job for each fold, which is evaluated on that fold and trained on the others."""

    count: int = Field(ge=2, le=100, description="Number of folds, of about equal size; a hash of the row selects its fold.")
    hold: int = Field(0, ge=0, le=99, description="The fold to evaluate on, counted from 0.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.hold < self.count", "there is no such fold: set hold to a value from 0 to count - 1", "hold"),
    )


class DataConfig(Section):
    """Training and evaluation data, and how they become sequences of tokens."""

    train: list[DatasetConfig] = Field(min_length=1, max_length=64)
    evaluation: list[DatasetConfig] = Field(default_factory=list, max_length=64)
    replay: list[DatasetConfig] = Field(
        default_factory=list,
        max_length=64,
        description="Data of an earlier run: training.continualLearning.ewc estimates importance on it, replay repeats it.",
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
        description="Fill each sequence with several documents, with attention within each document only; otherwise each "
        "sequence is one document, padded. On by default if objective, method and model "
        "support it.",
    )
    overlong: Literal["Split", "Truncate", "Drop"] | None = Field(
        None,
        description="Documents longer than maxLength. Split is the default if the objective supports it, Truncate otherwise.",
    )

    resample: Literal["None", "Balanced"] = Field(
        "None",
        description="Balanced gives each label an equal share: rows of rare labels are repeated, those of frequent ones "
        "sampled.",
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
            "a weight sets how often training rows are seen: remove it from data that is not in data.train",
            "evaluation",
        ),
        Rule(
            "self.resample == 'None' || self.train.all(one, !has(one.weight))",
            "sources and labels cannot both set how often a row is seen: remove the weights of data.train, or data.resample",
            "resample",
        ),
    )
