"""Names the rows of data behind an anomaly: those of the micro-batches whose own loss is not finite, or is the highest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed.collectives import on_first_rank
from finetune_trainer.distributed.process_group import ProcessGroup

MAX_NAMED_ROWS = 8
MAX_SAMPLES = 16  # of one rank, whose rows are looked up


def describe_rows(
    group: ProcessGroup, micro_batches: Sequence[MicroBatch], losses: Sequence[float], weights: Sequence[float],
    origins: Callable[[Sequence[int]], list[str]],
) -> str:  # fmt: skip
    """A phrase on the rows of a step, the same on every rank; empty if the rows are not known. Collective.

    `losses` has what each of this rank's micro-batches adds to the mean loss of the step, and `weights` its share of the terms
    that the mean is over. Rows are named by the micro-batch, because its rows are computed together.
    """
    means = [loss / weight if weight else 0.0 for loss, weight in zip(losses, weights, strict=True)]
    are_finite = [math.isfinite(mean) for mean in means]
    count, finite = group.sums(len(means), sum(are_finite))
    if not finite and count > 1:
        return "in all micro-batches, so that the weights are the cause and no single row is"
    if finite < count:
        suspects, phrase = [index for index, is_finite in enumerate(are_finite) if not is_finite], "with"
    else:
        suspects, phrase = _highest(group, means), "with the highest loss in"
    rows = [row for index in suspects for row in micro_batches[index].rows][:MAX_SAMPLES]
    everywhere, _ = group.gather(torch.tensor(rows, dtype=torch.int64).reshape(-1, 1))
    names = on_first_rank(group, lambda: origins(everywhere.flatten().tolist()))
    if not names:
        return ""
    more = f" and {len(names) - MAX_NAMED_ROWS} more rows" if len(names) > MAX_NAMED_ROWS else ""
    return f"{phrase} {', '.join(names[:MAX_NAMED_ROWS])}{more}"


def _highest(group: ProcessGroup, means: Sequence[float]) -> list[int]:
    """The index of the micro-batch with the highest mean loss on this rank, if no other rank has a higher one."""
    own = max(means)
    highest = [0.0] * group.size
    highest[group.rank] = own
    everywhere = group.sums(*highest)
    return [means.index(own)] if everywhere.index(max(everywhere)) == group.rank else []
