"""Several tasks at once, which share an encoder and have a head each (Liu et al. 2019, arXiv:1901.11504)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow
import torch
from transformers import AutoModel

from finetune_trainer.config import ObjectiveChoice, ObjectiveSpec, TrainSpec
from finetune_trainer.config.objectives import CONFIGS
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.stream import SPLITS
from finetune_trainer.objectives import objective_class
from finetune_trainer.objectives.base import (
    BatchStatistics,
    Collator,
    Encoder,
    Metrics,
    ModelSetup,
    Objective,
    ObjectiveContext,
    Statistics,
)
from finetune_trainer.objectives.description import Block, text_block
from finetune_trainer.objectives.losses.from_outputs import BatchLoss

TASK = "task"  # the number of the task that an example is of
Tasks = Mapping[str, Objective]
"""The objective of each task, by the task's name."""


@dataclass
class MultiTask(Objective):
    """The weighted sum of the tasks' losses, each a mean over its own terms.

    A batch has a batch of each task. Every task is computed for every micro-batch, even if it has no rows there, so that all
    ranks make the same forward passes.
    """

    tasks: Tasks

    @classmethod
    def from_spec(cls, spec: TrainSpec, processor: Any) -> Self:
        """Build the objective of each task, as a document with this task alone would."""
        tasks: dict[str, Objective] = {}
        for task in spec.objective.tasks:
            tasks[task.name] = objective_class(task.type).from_spec(single_task_spec(spec, task.name), processor)
        context = ObjectiveContext.from_spec(spec)
        loss = MultiTaskLoss(tasks, [task.weight for task in spec.objective.tasks])
        setup = ModelSetup(pipeline_task="feature-extraction", auto_class=AutoModel)
        return cls(
            encoder=MultiTaskEncoder(processor, context, tasks),
            collator=MultiTaskCollator(tasks),
            model_setup=setup,
            loss=loss,
            metrics=MultiTaskMetrics(loss, tasks),
            tasks=tasks,
        )

    @property
    def members(self) -> Tasks:
        """Each task's objective; their tokenizers may differ, as TokenClassification adapts its own."""
        return self.tasks

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The task's name, and what its model gets."""
        name = list(self.tasks)[int(sample[TASK])]
        return [text_block("task", name), *self.tasks[name].describe(sample, batch.tasks[name])]

    def build_model(self, load: Callable[[Objective], Any]) -> Any:
        """A model for each task, with one encoder for all of them."""
        return SharedEncoder({name: load(task) for name, task in self.tasks.items()})

    def exported_models(self, model: Any) -> Mapping[str, Any]:
        """A folder for each task, with a copy of the encoder: transformers can load each of them."""
        return {name: model.models[name] for name in self.tasks}


def single_task_spec(spec: TrainSpec, name: str) -> TrainSpec:
    """The document with one of its tasks as the only objective, and with the data of this task."""
    [task] = [task for task in spec.objective.tasks if task.name == name]
    choice = {field: getattr(task, field) for field in ObjectiveChoice.model_fields}
    task_data: dict[str, Any] = {}
    for split in SPLITS:
        sources = [source for source in getattr(spec.data, split) if source.task == name]
        task_data[split] = [source.model_copy(update={"task": None}) for source in sources]
    objective = ObjectiveSpec.model_construct(**choice, tasks=[])
    return spec.model_copy(update={"objective": objective, "data": spec.data.model_copy(update=task_data)})


class SharedEncoder(torch.nn.Module):
    """Models with one encoder."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        super().__init__()
        # Some heads need an encoder with a pooler, and the others ignore it: so the encoder with the most parameters is shared.
        encoders = [model.base_model for model in models.values()]
        encoder = max(encoders, key=lambda encoder: sum(1 for _ in encoder.parameters()))
        for model in models.values():
            setattr(model, model.base_model_prefix, encoder)
            model.tie_weights()
        self.models = torch.nn.ModuleDict(models)
        self.config = encoder.config
        self._encoder = [encoder]  # in a list, as it is registered as part of the models already

    @property
    def base_model(self) -> Any:
        """The encoder, by transformers' name for it."""
        return self._encoder[0]

    def forward(self, *, task: str, **inputs: Any) -> Any:
        """The outputs of the task's model."""
        return self.models[task](**inputs)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Recompute the encoder's activations."""
        self.base_model.gradient_checkpointing_enable(**options)

    def enable_input_require_grads(self) -> None:
        """Let a reentrant recomputation begin below frozen weights."""
        self.base_model.enable_input_require_grads()


class MultiTaskEncoder(Encoder):
    """Encodes each row for its own task; the fields of all other tasks are empty."""

    def __init__(self, processor: Any, context: ObjectiveContext, tasks: Tasks) -> None:
        super().__init__(processor, context)
        self.tasks = tasks
        self.numbers = {name: number for number, name in enumerate(tasks)}
        self.fields = _merge_fields(tasks)

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The statistics of each task, from its own rows."""
        return {name: task.encoder.collect_statistics(partial(_rows_of, rows, name)) for name, task in self.tasks.items()}

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Use the statistics of each task."""
        super().set_statistics(statistics)
        for name, task in self.tasks.items():
            task.encoder.set_statistics(statistics[name])

    @property
    def fingerprint(self) -> Any:
        return [[name, type(task).__name__, task.encoder.fingerprint] for name, task in self.tasks.items()]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """The examples of each row, with the number of its task."""
        encoded = {}
        for name, task in self.tasks.items():
            task_rows = [row for row in rows if row.task == name]
            if task_rows:
                encoded[name] = iter(task.encoder.encode(task_rows))
        empty: dict[str, Any] = {name: [] if pyarrow.types.is_list(kind) else 0 for name, kind in self.fields.items()}
        for row in rows:
            assert row.task is not None, "the document's rules give each source a task where there are several"
            task_row = next(encoded[row.task])
            number = self.numbers[row.task]
            yield task_row._replace(examples=[{**empty, **example, TASK: number} for example in task_row.examples])


def _rows_of(rows: Callable[[], Iterable[Row]], task: str) -> Iterator[Row]:
    return (row for row in rows() if row.task == task)


def _merge_fields(tasks: Tasks) -> dict[str, pyarrow.DataType]:
    """The fields of all tasks. Where two have a field of the same name, the type of the one later in `CONFIGS` holds both."""
    order = list(CONFIGS)
    fields: dict[str, pyarrow.DataType] = {TASK: pyarrow.int32()}
    for task in sorted(tasks.values(), key=lambda task: order.index(type(task).__name__)):
        fields |= task.encoder.fields
    return fields


class MultiTaskCollator(Collator):
    """Makes a batch of each task's own rows."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        batches = {}
        for number, (name, task) in enumerate(self.tasks.items()):
            indices = [index for index, sample in enumerate(samples) if sample[TASK] == number]
            task_samples, task_generators = [samples[index] for index in indices], [generators[index] for index in indices]
            batches[name] = task.collator.collate(task_samples, task_generators, layout)
        return Batch(tasks=batches)

    def count_terms(self, batch: Batch) -> Sequence[float]:
        """The terms of each task's loss."""
        counts: list[float] = []
        for name, task in self.tasks.items():
            counts += task.collator.count_terms(batch.tasks[name])
        return counts


class MultiTaskLoss(BatchLoss):
    """Each task's loss times its weight."""

    def __init__(self, tasks: Tasks, weights: Sequence[float]) -> None:
        self.tasks = tasks
        self.weights = weights
        self.names = list(tasks)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The weighted loss of each task, [tasks]."""
        sums = []
        for name, task in self.tasks.items():
            sums.append(task.loss.loss_sum(partial(model, task=name), batch.tasks[name]))
        return self.apply_weights(torch.cat(sums))

    def apply_weights(self, sums: torch.Tensor) -> torch.Tensor:
        """The losses [tasks] times their weights."""
        return sums * torch.tensor(self.weights, dtype=sums.dtype, device=sums.device)


class MultiTaskMetrics(Metrics[Batch]):
    """The metrics of each task, and the weighted sum of the losses."""

    def __init__(self, loss: MultiTaskLoss, tasks: Tasks) -> None:
        self.loss = loss
        self.tasks = tasks
        self._widths: list[int] | None = None  # of each task's statistics

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: each task's, one after the other."""
        measured = []
        for name, task in self.tasks.items():
            measured.append(task.metrics.measure(partial(model, task=name), batch.tasks[name]))
        self._widths = [len(task_measured.statistics) for task_measured in measured]
        losses = self.loss.apply_weights(torch.cat([task_measured.losses for task_measured in measured]))
        return BatchStatistics(losses, torch.cat([task_measured.statistics.cpu() for task_measured in measured]))

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """The sum that is minimized as `loss`, and each task's metrics as TASK.METRIC."""
        metrics = {"loss": sum(losses)}
        parts = zip(self.tasks.items(), losses, self.loss.weights, self._split(statistics), strict=True)
        for (name, task), loss, weight, task_statistics in parts:
            for metric, value in task.metrics.compute([loss / weight], task_statistics).items():
                metrics[f"{name}.{metric}"] = value
        return metrics

    def tables(self, statistics: Statistics) -> dict[str, Any]:
        """Each task's tables as TASK.TABLE."""
        tables = {}
        for (name, task), task_statistics in zip(self.tasks.items(), self._split(statistics), strict=True):
            for table, content in task.metrics.tables(task_statistics).items():
                tables[f"{name}.{table}"] = content
        return tables

    def _split(self, statistics: Statistics) -> list[Statistics]:
        assert self._widths is not None, "measure a batch first: the statistics are divided as the tasks returned them"
        return np.split(statistics, np.cumsum(self._widths)[:-1])
