"""This rank's micro-batches of the training and the evaluation data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from finetune_trainer.config import TrainingConfig
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.dataloader import BatchBuilder, MicroBatch, PrefetchLoader
from finetune_trainer.data.loading.dataset import ArrowDataset
from finetune_trainer.data.loading.sampler import Sampler, sequential
from finetune_trainer.data.preprocessing.prepare import Prepared
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives import Objective
from finetune_trainer.training.skipped_batches import SkippedBatches


@dataclass
class BatchSource:
    """Functions that return this rank's micro-batches.

    `training(finished_steps, skipped)` yields a list of micro-batches for each step after the finished ones, without the
    skipped batches. `evaluation()` yields the evaluation data in lists of as many rows as a training step has; `few_shot()`
    yields the same rows with solved training rows before each. The last two are None if the document has no such data.
    `origins` returns the places in the data that training samples with these indices come from.
    """

    training: Callable[[int, SkippedBatches], Iterator[list[MicroBatch]]]
    evaluation: Callable[[], Iterable[list[MicroBatch]]] | None = None
    few_shot: Callable[[], Iterable[list[MicroBatch]]] | None = None
    origins: Callable[[Sequence[int]], list[str]] = lambda rows: []


def build_batch_source(
    data: Prepared, objective: Objective, layout: Layout, group: ProcessGroup, training: TrainingConfig, total_steps: int
) -> BatchSource:
    """The micro-batches of the prepared data for this rank."""
    batch_builder = partial(
        BatchBuilder, collator=objective.collator, rank=group.rank, size=group.size, micro_batch_size=training.micro_batch_size,
        seed=training.seed,
    )  # fmt: skip
    sampler = Sampler(data.epoch, training.batch_size, training.seed, data.mixture)

    def training_batches(finished_steps: int, skipped: SkippedBatches) -> Iterator[list[MicroBatch]]:
        build = batch_builder(data.train, layout=layout._replace(training=True))
        batches = (skipped.batch_of_step(step) for step in range(finished_steps, total_steps))
        return PrefetchLoader(build, map(sampler.indices_for_step, batches))

    def batches_in_order(rows: ArrowDataset) -> Iterator[list[MicroBatch]]:
        build = batch_builder(rows, layout=layout)
        with PrefetchLoader(build, sequential(len(rows), training.batch_size)) as batches:
            yield from batches

    return BatchSource(
        training_batches,
        evaluation=None if data.evaluation is None else partial(batches_in_order, data.evaluation),
        few_shot=partial(batches_in_order, data.few_shot) if data.few_shot else None,
        origins=data.origins.of,
    )
