"""Which group each row to learn from belongs to, where groups have shares: sources or labels, and what is rehearsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from finetune_trainer import config
from finetune_trainer.data.loading.sampler import Mixture
from finetune_trainer.data.preprocessing.examples import EncodeCounts
from finetune_trainer.data.records.roles import label_name
from finetune_trainer.data.sources.stream import SplitRow
from finetune_trainer.protocol.outcome import DataError

GROUPS = "groups.npy"


def kind(data: config.DataConfig) -> Literal["source", "label"] | None:
    """What the groups are."""
    if data.resample == "Balanced":
        return "label"
    return "source" if data.train[0].weight is not None else None


def grouping(data: config.DataConfig) -> Callable[[SplitRow], int]:
    """Tells each record's group: labels are numbered as they come."""
    labels: dict[str, int] = {}

    def of_label(placed: SplitRow) -> int:
        name = json.dumps([label_name(placed.row.values["label"])])
        return labels.setdefault(name, len(labels))

    match kind(data):
        case "label":
            return of_label
        case "source":
            return lambda placed: placed.source
        case None:
            return lambda _: 0


def sizes(counts: EncodeCounts) -> list[int]:
    """How many examples follow each other in one group."""
    return [len(list(run)) for _, run in groupby(counts.groups)]


def keep(folder: Path, counts: EncodeCounts, packed: list[int] | None, data: config.DataConfig) -> None:
    """Stores the group of each row; `packed` is how many rows became of each run of examples, if they were packed.

    Raises DataError for a source that has a weight and nothing to learn from.
    """
    if kind(data) is None:
        return
    groups = np.array(counts.groups, np.int32)
    present = set(groups.tolist())
    for number, dataset in enumerate(data.train):
        if kind(data) == "source" and number not in present:
            raise DataError(
                f"spec.data.train[{number}].weight: nothing of {dataset.source} is left to learn from, so that it can have no "
                "share: remove this source, or change checks or overlong"
            )
    if packed is not None:
        groups = np.repeat(np.array([number for number, _ in groupby(counts.groups)], np.int32), packed)
    np.save(folder / GROUPS, groups)


def with_replay(new: Mixture | None, length: int, earlier: int, replay: config.ReplayConfig | None) -> Mixture | None:
    """The mixture of `length` new rows with `earlier` ones behind them; what these leave is shared out as it was before."""
    if replay is None:
        return new
    groups, shares = new or Mixture(np.zeros(length, np.int32), [1.0])
    rest = (1 - replay.share) / sum(shares)
    behind = np.full(earlier, len(shares), np.int32)
    return Mixture(np.concatenate([groups, behind]), [*(rest * one for one in shares), replay.share])


def mixture(folder: Path, data: config.DataConfig) -> Mixture | None:
    """The groups of new rows that were stored, with their shares; None without groups."""
    if kind(data) is None:
        return None
    groups = np.load(folder / GROUPS)
    if kind(data) == "source":
        return Mixture(groups, [dataset.weight or 0.0 for dataset in data.train])
    present, numbers = np.unique(groups, return_inverse=True)  # a label may have lost all its rows
    return Mixture(numbers.astype(np.int32), [1.0] * len(present))
