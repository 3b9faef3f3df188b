"""What an objective is to the rest of the trainer, from a record of the data to a metric of the evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow
import torch

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup

__all__ = ["Batch", "BatchStatistics", "Objective"]


class BatchStatistics(NamedTuple):
    """What an evaluation keeps of a batch. Both are sums, so that memory does not grow and ranks add up."""

    losses: torch.Tensor
    """Sum of the terms of each loss, [losses]."""
    statistics: torch.Tensor
    """Whatever the metrics are computed from, [any length] float64."""


class Objective(ABC):
    """One way to learn; its methods stand in the order in which a run calls them.

    Each loss is a sum over terms (for language models: predicted tokens) beside the number of terms, never a mean: only sums
    add up to the same number at every world size and accumulation. What is minimised is the sum of the losses' means.
    """

    task: ClassVar[str]
    """What the hub calls what the exported model is for: a task of `transformers.pipeline`, if it has it."""
    auto_class: ClassVar[Any]
    """transformers' Auto class of the model."""
    adapter_task: ClassVar[str | None] = None
    """What peft calls the task, if it has a name for it."""
    fields: ClassVar[Mapping[str, pyarrow.DataType]]
    """The fields of an example and their Arrow types, lists of numbers or numbers."""
    encode_batch_size: ClassVar[int] = 1000
    """Records to be encoded and held in memory at once."""
    losses: Sequence[str] = ("loss",)
    """Names of the losses that are added up."""
    causal: ClassVar[bool | None] = None
    """Whether a token may see only those before it (True) or must see all (False); None where neither is asked."""
    has_new_head: ClassVar[bool] = False
    """Whether a pretrained model may come without its last layers, which then begin with random weights."""

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        """`processor` is the model's tokenizer or image processor; raises ConfigurationError for one that does not fit."""
        self.spec = spec
        self.processor = processor
        self.facts: dict[str, Any] = {}

    def collect_statistics(self, records: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """What must be known of all training records before the first is encoded, such as the set of labels; JSON."""
        return {}

    def set_statistics(self, facts: dict[str, Any]) -> None:
        """Takes note of what the survey found, in this run or an earlier one."""
        self.facts = facts

    @property
    @abstractmethod
    def identity(self) -> Any:
        """What changes when the examples of a record may; JSON."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """The most tokens of a sequence that the model must have positions for, by the field that says so."""
        return {"spec.data.maxLength": self.spec.data.max_length}

    @abstractmethod
    def encode(self, records: Sequence[Row]) -> Iterable[EncodedRow]:
        """What becomes of each record, in their order; raises DataError for one that cannot be used.

        Where the options say `in_context`, a record's examples stand before it, and nothing of them is learnt or measured.
        """

    def model_config_overrides(self) -> dict[str, Any]:
        """Fields of the model's configuration that follow from the objective and the data."""
        return {}

    @abstractmethod
    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """A micro-batch; each row comes with its own random numbers. No rows at all become a batch without terms."""

    @abstractmethod
    def count(self, batch: Batch) -> Sequence[float]:
        """Number of terms in each loss of the batch, or the sum of their weights.

        It needs no model, so that it is known before the first forward.
        """

    def build(self, load: Callable[[Objective], Any]) -> Any:
        """The model to train; `load` gives the model of an objective's Auto class from the document's source."""
        return load(self)

    def parts(self, model: Any) -> Mapping[str, Any]:
        """The models to export, each by the folder it gets within the export and by the name it has in `model`."""
        return {"": model}

    def members(self) -> Mapping[str, Objective]:
        """The objective that each of these models is trained for, by the same folder."""
        return {"": self}

    def start(self, model: Any, world: ProcessGroup) -> None:  # noqa: B027  # most objectives need not know
        """Called once with the model as it starts, before the method adapts it; whoever compares with it keeps a copy."""

    def prepare_step(self, model: Any, batches: Sequence[Batch], world: ProcessGroup) -> None:  # noqa: B027  # nor compare rows
        """Called on all ranks before the batches of an optimizer step, or of as many rows of an evaluation, are computed.

        For losses that compare a row with the others of its step, which may be in other batches and on other ranks. Each batch
        is then computed once, in the same order.
        """

    @abstractmethod
    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Sum of the terms of each loss, [losses] float32 to differentiate, from one call of `model`."""

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """The same beside the statistics that `metrics` wants, without gradients."""
        return BatchStatistics(self.loss_sum(model, batch), torch.zeros(0, dtype=torch.float64))

    def asked(self, prompt: str) -> Any:
        """What the task's pipeline is given for a prompt of the document."""
        return prompt

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """What an evaluation reports for each loss's mean and the sum of all statistics; `loss` is always among it."""
        return {"loss": sum(losses)}

    def extra_files(self) -> dict[str, Any]:
        """What else the exported folder is to hold, JSON by path: for libraries that ask for more than transformers does."""
        return {}

    def tables(self, statistics: np.ndarray[Any, Any]) -> dict[str, Any]:
        """What else an evaluation reports, JSON by name: a name that ends in `confusion` is that of a confusion matrix."""
        return {}
