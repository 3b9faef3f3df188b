"""The parts of an objective, and the objective as their assembly.

A run uses them in this order: the encoder turns rows into examples once, the collator makes micro-batches of them, the model
setup prepares the model, the loss trains it, and the metrics evaluate it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow
import torch

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives import field_of
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, Overlong
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.description import Block, document_blocks

Statistics = np.ndarray[Any, Any]
"""The sum of `BatchStatistics.statistics` over all batches and ranks."""

PreparedT = TypeVar("PreparedT")


class BatchStatistics(NamedTuple):
    """The result of evaluating one batch. Both tensors are sums, so memory does not grow and ranks can be added."""

    losses: torch.Tensor
    """Sum of the terms of each loss, [losses]."""
    statistics: torch.Tensor
    """The sums that the metrics are computed from, [any length] float64."""


@dataclass(frozen=True)
class ObjectiveContext:
    """All that an objective needs from the rest of the document."""

    section: str
    """The objective's section in the document, such as `maskedLM`; error messages name it."""
    max_length: int
    overlong: Overlong
    label_smoothing: float
    from_scratch: bool
    has_adapters: bool
    zero_stage: int

    @classmethod
    def from_spec(cls, spec: TrainSpec) -> Self:
        """The context that a document gives its objective."""
        return cls(
            section=field_of(spec.objective.type),
            max_length=spec.data.max_length,
            overlong=spec.overlong,
            label_smoothing=spec.training.label_smoothing,
            from_scratch=spec.model.initialization == "Scratch",
            has_adapters=spec.method.config.trains_adapter,
            zero_stage=spec.deepspeed.zero_stage,
        )


class Encoder(ABC):
    """Turns rows of data into examples, once, before training.

    First `collect_statistics` reads all training rows, then `set_statistics` takes its result (from this run or from the cache
    of an earlier one), and only then rows can be encoded.
    """

    fields: Mapping[str, pyarrow.DataType]
    """The fields of an example and their Arrow types: lists of numbers, or numbers."""
    batch_size: int = 1000
    """Rows to encode, and to hold in memory, at once."""

    def __init__(self, processor: Any, context: ObjectiveContext) -> None:
        """`processor` is the model's tokenizer or image processor."""
        self.processor = processor
        self.context = context
        self._statistics: dict[str, Any] | None = None

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """Facts about all training rows that encoding depends on, such as the set of labels; JSON."""
        return {}

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Use the result of `collect_statistics`."""
        self._statistics = statistics

    @property
    def statistics(self) -> dict[str, Any]:
        """The result of `collect_statistics`."""
        assert self._statistics is not None, "call set_statistics first: encoding depends on all training rows"
        return self._statistics

    @property
    @abstractmethod
    def fingerprint(self) -> Any:
        """Changes when the examples of a row may change; JSON."""

    @property
    def max_lengths(self) -> Mapping[str, int]:
        """The tokens that the model must have positions for, by the field of the document that sets the number."""
        return {"spec.data.maxLength": self.context.max_length}

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> Iterable[EncodedRow]:
        """The examples of each row, in the order of the rows; raises DataError for a row that cannot be used.

        With a config that `supports_few_shot`, a row may carry solved examples. They precede it in the prompt, and no loss or
        metric is computed on them.
        """


class Collator(ABC):
    """Makes micro-batches."""

    @abstractmethod
    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """A micro-batch; each sample has its own random generator. Without samples it is a batch without terms."""

    @abstractmethod
    def count_terms(self, batch: Batch) -> Sequence[float]:
        """The number of terms in each loss of the batch, or the sum of their weights.

        It needs no model, so that it is known before the first forward pass.
        """


@dataclass(kw_only=True)
class ModelSetup:
    """The kind of model that an objective trains, and how it is set up and exported."""

    pipeline_task: str
    """The model's task on the Hugging Face Hub, and the task of `transformers.pipeline` where there is one."""
    auto_class: Any
    """The Auto class of transformers that loads the model."""
    peft_task_type: str | None = None
    """peft's TaskType, where it has one."""
    is_causal: bool | None = None
    """Whether a token attends only to earlier ones (True) or must attend to all (False); None where neither is checked."""
    has_new_head: bool = False
    """Whether a pretrained model may lack its last layers, which then start with random weights."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what happened to the starting model, for the log, the reports and the model card."""

    def start_from(self, source: Any) -> None:  # most objectives need to know nothing
        """Called before the data is read, with the transformers configuration of the model that training starts from."""

    @property
    def continues_task(self) -> bool:
        """Whether the source was trained for this objective's task, so that it has a head for it."""
        return False

    def head_mismatch(self) -> str | None:
        """Why the source's head, if it has one, stands for something else than this objective's; None where it may be kept."""
        return None

    def config_overrides(self) -> dict[str, Any]:
        """Fields of the model's configuration that follow from the objective and the data."""
        return {}

    def prepare(self, model: Any, group: ProcessGroup) -> None:  # most objectives change nothing
        """Called once with the starting model, before the method adapts it; raises ConfigurationError if it cannot be used."""

    def format_prompt(self, prompt: str) -> Any:
        """The input of the task's pipeline for a prompt of the document."""
        return prompt

    def extra_files(self) -> dict[str, Any]:
        """Further files of the exported model, JSON by path, for libraries that need more than transformers does."""
        return {}


class Loss(ABC, Generic[PreparedT]):
    """One or more losses to minimize.

    Each is a sum over terms (for language models: predicted tokens), with the number of terms counted separately by the
    collator, and never a mean: only sums are the same at every world size and accumulation. The sum of the losses' means is
    minimized.
    """

    names: Sequence[str] = ("loss",)
    """Names of the losses that are added up."""

    @abstractmethod
    def prepare_step(self, model: Any, batches: Sequence[Batch], group: ProcessGroup) -> Sequence[PreparedT]:
        """Prepare all batches of an optimizer step, or of as many rows of an evaluation; called on all ranks.

        Losses that compare a row with the other rows of its step, which may be in other batches and on other ranks, do so here.
        Each prepared batch is then given once, in this order, to `loss_sum` or to `Metrics.measure`.
        """

    @abstractmethod
    def loss_sum(self, model: Any, batch: PreparedT) -> torch.Tensor:
        """The sum of the terms of each loss, [losses] float32 with gradients, from one forward pass."""


class Metrics(ABC, Generic[PreparedT]):
    """Metrics of an evaluation, computed from sums over its batches."""

    @abstractmethod
    def measure(self, model: Any, batch: PreparedT) -> BatchStatistics:
        """The losses of a batch, without label smoothing, and the statistics of the metrics; called without gradients."""

    @abstractmethod
    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """The metrics from the mean of each loss and the summed statistics; one of them is `loss`."""

    @property
    def scored_labels(self) -> list[str] | None:
        """The labels that have a metric f1[LABEL] of their own; None for an objective without labels."""
        return None

    def tables(self, statistics: Statistics) -> dict[str, Any]:
        """Tables to report, JSON by name; a name that ends in `confusion` is a confusion matrix."""
        return {}


@dataclass
class Objective:
    """A training objective, assembled from its parts."""

    encoder: Encoder
    collator: Collator
    model_setup: ModelSetup
    loss: Loss[Any]
    metrics: Metrics[Any]

    @classmethod
    def from_spec(cls, spec: TrainSpec, processor: Any) -> Self:
        """Build the objective of a document that chooses this class."""
        return cls.assemble(spec.objective.config, ObjectiveContext.from_spec(spec), processor)

    @classmethod
    def assemble(cls, config: Any, context: ObjectiveContext, processor: Any) -> Self:
        """Build the parts from the config of the same name (`MaskedLMConfig` for `MaskedLM`).

        Raises ConfigurationError for a tokenizer or image processor that the objective cannot use.
        """
        raise NotImplementedError(f"{cls.__name__} defines neither assemble nor from_spec")

    @property
    def processor(self) -> Any:
        """The tokenizer or image processor to export with the model."""
        return self.encoder.processor

    @property
    def members(self) -> Mapping[str, Objective]:
        """The objective of each exported model, by the same folder as in `exported_models`."""
        return {"": self}

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """What the model gets for a sample, for people to read; `batch` is the sample collated alone.

        An objective with other inputs and targets than `input_ids` and a `labels` of the same shape overrides it.
        """
        return document_blocks(sample, batch, self.processor)

    @property
    def notes(self) -> list[str]:
        """Sentences on what happened to the starting model."""
        return list(dict.fromkeys(note for member in self.members.values() for note in member.model_setup.notes))

    def build_model(self, load: Callable[[Objective], Any]) -> Any:
        """The model to train; `load` returns the model of an objective's Auto class from the document's source."""
        return load(self)

    def exported_models(self, model: Any) -> Mapping[str, Any]:
        """The models to export, by their folders within the export."""
        return {"": model}


def unwrap_model(model: Any) -> Any:
    """The model inside DeepSpeed's engine, or the model itself."""
    return getattr(model, "module", model)
