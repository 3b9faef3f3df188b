"""What is learnt: each objective's options in a file of its own, and the document's section that chooses one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section, described, only_with
from finetune_trainer.config.objectives.base import Options
from finetune_trainer.config.objectives.causal_lm import CausalLM
from finetune_trainer.config.objectives.denoising import Denoising
from finetune_trainer.config.objectives.image_classification import ImageClassification
from finetune_trainer.config.objectives.image_contrastive import ImageContrastive
from finetune_trainer.config.objectives.instruction_tuning import InstructionTuning
from finetune_trainer.config.objectives.masked_lm import MaskedLM
from finetune_trainer.config.objectives.multi_task import MultiTask
from finetune_trainer.config.objectives.next_sentence import NextSentence
from finetune_trainer.config.objectives.preference_tuning import PreferenceTuning
from finetune_trainer.config.objectives.question_answering import QuestionAnswering
from finetune_trainer.config.objectives.seq2seq import Seq2Seq
from finetune_trainer.config.objectives.sequence_classification import SequenceClassification
from finetune_trainer.config.objectives.text_contrastive import TextContrastive
from finetune_trainer.config.objectives.token_classification import TokenClassification

OPTIONS: dict[str, type[Options]] = {
    "CausalLM": CausalLM,
    "Denoising": Denoising,
    "ImageClassification": ImageClassification,
    "ImageContrastive": ImageContrastive,
    "InstructionTuning": InstructionTuning,
    "MaskedLM": MaskedLM,
    "MultiTask": MultiTask,
    "NextSentence": NextSentence,
    "PreferenceTuning": PreferenceTuning,
    "QuestionAnswering": QuestionAnswering,
    "Seq2Seq": Seq2Seq,
    "SequenceClassification": SequenceClassification,
    "TextContrastive": TextContrastive,
    "TokenClassification": TokenClassification,
}
"""Each objective's options by the objective's name in the document."""
SHARING = [name for name, options in OPTIONS.items() if options.shares_encoder]


def field_of(name: str) -> str:
    """Where the document has an objective's options: MaskedLM's below maskedLM."""
    return name[0].lower() + name[1:]


class Choice(Section):
    """An objective: its name, and below a field of its own what may be chosen about it."""

    type: Literal[
        "CausalLM",
        "Denoising",
        "ImageClassification",
        "ImageContrastive",
        "InstructionTuning",
        "MaskedLM",
        "MultiTask",
        "NextSentence",
        "PreferenceTuning",
        "QuestionAnswering",
        "Seq2Seq",
        "SequenceClassification",
        "TextContrastive",
        "TokenClassification",
    ] = Field("CausalLM", description=described(OPTIONS))
    denoising: Denoising | None = None
    image_classification: ImageClassification | None = None
    image_contrastive: ImageContrastive | None = None
    instruction_tuning: InstructionTuning | None = None
    masked_lm: MaskedLM | None = Field(None, alias=field_of("MaskedLM"))
    next_sentence: NextSentence | None = None
    preference_tuning: PreferenceTuning | None = None
    question_answering: QuestionAnswering | None = None
    seq2seq: Seq2Seq | None = Field(None, alias=field_of("Seq2Seq"))
    sequence_classification: SequenceClassification | None = None
    text_contrastive: TextContrastive | None = None
    token_classification: TokenClassification | None = None

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        only_with(name, field_of(name), "objective") for name, options in OPTIONS.items() if options.model_fields
    )

    @property
    def options(self) -> Options:
        """The chosen objective's options, the defaults if the document gives none."""
        given = {info.alias: getattr(self, name) for name, info in type(self).model_fields.items()}
        return given.get(field_of(self.type)) or OPTIONS[self.type]()

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that the objective reads, by their names in `data.train[].columns`."""
        return self.options.roles


TaskName = Annotated[str, Field(max_length=32, pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", description="Name of a task.")]


class Task(Choice):
    """One of several objectives that share an encoder; it has a head, a loss and metrics of its own."""

    name: TaskName
    weight: float = Field(1.0, gt=0, le=1e6, description="What its loss is multiplied with in the sum that is minimised.")

    rules: ClassVar[tuple[Rule, ...]] = (
        *Choice.rules,
        Rule(
            f"self.type in {SHARING}",
            f"this objective cannot share an encoder with others: set type to one of {', '.join(SHARING)}",
            "type",
        ),
    )


class Objective(Choice):
    """The loss to minimise."""

    tasks: list[Task] = Field(default_factory=list, max_length=16, description="With MultiTask, what is learnt at once.")

    rules: ClassVar[tuple[Rule, ...]] = (
        *Choice.rules,
        Rule(
            "(self.type == 'MultiTask') == (size(self.tasks) > 0)",
            "several tasks at once need type: MultiTask, and MultiTask needs tasks: add the one or remove the other",
            "tasks",
        ),
        Rule(
            "self.tasks.all(one, self.tasks.exists_one(other, one.name == other.name))",
            "two tasks have the same name: give each a name of its own",
            "tasks",
        ),
    )

    def roles_of(self, task: str | None) -> tuple[str, ...]:
        """The columns that are read of the rows of a task, or of all rows where there are no tasks."""
        return next(one.roles for one in self.tasks if one.name == task) if self.tasks else self.roles
