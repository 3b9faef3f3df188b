"""The number of steps and tokens of a run, estimated if only the first rows of its data were read."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.checks.report import SplitReport
from finetune_trainer.data.loading.sampler import total_steps
from finetune_trainer.preview.report import RunLength, SampledSource


def run_length(spec: TrainSpec, epoch: int, train: SplitReport, sampled: Sequence[SampledSource]) -> RunLength:
    """The length of a run whose epoch has `epoch` of the sequences that were read, and more in proportion to `sampled`.

    The sequences of sampled sources are scaled together, by the rows that they have for each row that was read.
    """
    read = [source for source in sampled if source.field.startswith("data.train")]
    totals = [source.total for source in read if source.total is not None]
    is_lower_bound = len(totals) < len(read)
    scale = 1.0
    if read and not is_lower_bound:
        rows = sum(source.rows for source in read)
        scale = (max(train.documents - rows, 0) + sum(totals)) / max(train.documents, rows)
    training = spec.training
    sequences = round(epoch * scale)
    steps = total_steps(sequences, training.batch_size, training.epochs, training.max_steps)
    tokens_per_step = train.tokens / train.rows * training.batch_size
    return RunLength(
        steps=steps,
        steps_per_epoch=sequences / training.batch_size,
        epochs=steps * training.batch_size / sequences if training.max_steps else float(training.epochs or 1),
        sequences_per_step=training.batch_size,
        tokens_per_step=tokens_per_step,
        tokens=round(steps * tokens_per_step),
        is_fixed=training.max_steps is not None,
        is_estimate=bool(read),
        is_lower_bound=is_lower_bound and training.max_steps is None,
    )
