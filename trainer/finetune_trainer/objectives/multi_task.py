"""Several objectives at once, which share an encoder and have a head each (Liu et al. 2019, arXiv:1901.11504)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from transformers import AutoModel

from finetune_trainer import config
from finetune_trainer.config.objectives import SHARING
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.stream import SPLITS
from finetune_trainer.objectives import named
from finetune_trainer.objectives.base import BatchStatistics, Objective

TASK = "task"  # the number of the task whose example it is


class SharedEncoder(torch.nn.Module):
    """Models with one encoder between them."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        super().__init__()
        # Some heads want an encoder with a pooler; the others do not mind it.
        body = max((model.base_model for model in models.values()), key=lambda body: sum(1 for _ in body.parameters()))
        for model in models.values():
            setattr(model, model.base_model_prefix, body)
            model.tie_weights()
        self.models = torch.nn.ModuleDict(models)
        self.config = body.config
        self._body = [body]  # in a list, as it is a part of the models already

    @property
    def base_model(self) -> Any:
        """The encoder, by transformers' name for it."""
        return self._body[0]

    def forward(self, *, task: str, **inputs: Any) -> Any:
        """What the task's model makes of the inputs."""
        return self.models[task](**inputs)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Recompute the encoder's activations."""
        self.base_model.gradient_checkpointing_enable(**settings)

    def enable_input_require_grads(self) -> None:
        """Let a reentrant recomputation begin below frozen weights."""
        self.base_model.enable_input_require_grads()


class MultiTask(Objective):
    """The weighted sum of the tasks' losses, each a mean over its own terms.

    A batch has the tensors of each task's batch, named TASK/TENSOR. Every task is computed for every micro-batch, also where
    it has no rows there, so that all ranks take the same way through the model.
    """

    task: ClassVar[str] = "feature-extraction"
    auto_class: ClassVar[Any] = AutoModel
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {TASK: pyarrow.int32()} | {
        field: kind for name in SHARING for field, kind in named(name).fields.items()
    }

    def __init__(self, spec: config.TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        chosen = spec.objective.tasks
        self._weights = [task.weight for task in chosen]
        self._tasks = {task.name: named(task.type)(_alone(spec, task), processor) for task in chosen}
        self.losses = [task.name for task in chosen]

    def collect_statistics(self, records: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """What each task must know of its own records."""

        def of(name: str) -> Iterator[Row]:
            return (record for record in records() if record.task == name)

        return {name: task.collect_statistics(partial(of, name)) for name, task in self._tasks.items()}

    def set_statistics(self, facts: dict[str, Any]) -> None:
        super().set_statistics(facts)
        for name, task in self._tasks.items():
            task.set_statistics(facts[name])

    @property
    def identity(self) -> Any:
        return [[name, type(task).__name__, task.identity] for name, task in self._tasks.items()]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """What each record's own task makes of it."""
        of_task = {name: [record for record in records if record.task == name] for name in self._tasks}
        encoded = {name: iter(self._tasks[name].encode(found)) for name, found in of_task.items() if found}
        numbers = {name: number for number, name in enumerate(self._tasks)}
        empty: dict[str, Any] = {name: [] if pyarrow.types.is_list(kind) else 0 for name, kind in self.fields.items()}
        for record in records:
            assert record.task is not None, "the document's rules ask for it"
            examples, status = next(encoded[record.task])
            yield EncodedRow([{**empty, **example, TASK: numbers[record.task]} for example in examples], status)

    def build(self, load: Callable[[Objective], Any]) -> Any:
        """A model for each task, with one encoder between them."""
        return SharedEncoder({name: load(task) for name, task in self._tasks.items()})

    def parts(self, model: Any) -> Mapping[str, Any]:
        """A folder for each task, with the encoder in each: that is what transformers can load."""
        return {name: model.models[name] for name in self._tasks}

    def members(self) -> Mapping[str, Objective]:
        """Each task's own; their tokenizers differ, as one of words does from one of texts."""
        return self._tasks

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Each task's batch of the rows that are its own."""
        batch: Batch = {}
        for number, (name, task) in enumerate(self._tasks.items()):
            own = [index for index, row in enumerate(rows) if row[TASK] == number]
            made = task.collate([rows[index] for index in own], [randoms[index] for index in own], layout)
            batch |= {f"{name}/{key}": tensor for key, tensor in made.items()}
        return batch

    def count(self, batch: Batch) -> Sequence[float]:
        """Each task's terms."""
        return [count for name, task in self._tasks.items() for count in task.count(_part(batch, name))]

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Each task's summed loss times its weight."""
        sums = [task.loss_sum(partial(model, task=name), _part(batch, name)) for name, task in self._tasks.items()]
        return self._weighted(torch.cat(sums))

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: each task's, one after the other."""
        found = [task.measure(partial(model, task=name), _part(batch, name)) for name, task in self._tasks.items()]
        self._widths = [len(one.statistics) for one in found]
        return BatchStatistics(
            self._weighted(torch.cat([one.losses for one in found])), torch.cat([one.statistics.cpu() for one in found])
        )

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """The sum that is minimised, and each task's metrics as TASK.METRIC."""
        found = {"loss": sum(losses)}
        parts = self._divided(statistics)
        for (name, task), loss, weight, own in zip(self._tasks.items(), losses, self._weights, parts, strict=True):
            found |= {f"{name}.{metric}": value for metric, value in task.metrics([loss / weight], own).items()}
        return found

    def tables(self, statistics: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Each task's tables as TASK.TABLE."""
        parts = zip(self._tasks.items(), self._divided(statistics), strict=True)
        return {f"{name}.{table}": found for (name, task), own in parts for table, found in task.tables(own).items()}

    def _divided(self, statistics: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        return np.split(statistics, np.cumsum(self._widths)[:-1])

    def _weighted(self, sums: torch.Tensor) -> torch.Tensor:
        return sums * torch.tensor(self._weights, dtype=sums.dtype, device=sums.device)


def _alone(spec: config.TrainSpec, task: config.TaskSpec) -> config.TrainSpec:
    """The document as it were with this task only."""
    chosen = {name: getattr(task, name) for name in config.ObjectiveChoice.model_fields}
    own: dict[str, Any] = {
        side: [source.model_copy(update={"task": None}) for source in getattr(spec.data, side) if source.task == task.name]
        for side in SPLITS
    }
    objective = config.ObjectiveSpec.model_construct(**chosen, tasks=[])
    return spec.model_copy(update={"objective": objective, "data": spec.data.model_copy(update=own)})


def _part(batch: Batch, name: str) -> Batch:
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in batch.items() if key.startswith(f"{name}/")}
