"""Groups of training rows with a share each: weighted sources, balanced labels, and replay rows."""

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
from finetune_trainer.data.records.labels import label_name
from finetune_trainer.data.sources.stream import SplitRow
from finetune_trainer.protocol.outcome import InsufficientDataError

GROUPS = "groups.npy"


def group_kind(data: config.DataConfig) -> Literal["source", "label"] | None:
    """What defines the group of a row; None without groups."""
    if data.resample == "Balanced":
        return "label"
    return "source" if data.train[0].weight is not None else None


def group_function(data: config.DataConfig) -> Callable[[SplitRow], int]:
    """A function from a row to its group; labels are numbered in the order in which they first occur."""
    numbers: dict[str, int] = {}

    def label_group(split_row: SplitRow) -> int:
        name = json.dumps([label_name(split_row.row.values["label"])])
        return numbers.setdefault(name, len(numbers))

    match group_kind(data):
        case "label":
            return label_group
        case "source":
            return lambda split_row: split_row.source
        case None:
            return lambda split_row: 0


def run_lengths(counts: EncodeCounts) -> list[int]:
    """The lengths of the runs of consecutive examples in one group."""
    return [len(list(run)) for _, run in groupby(counts.groups)]


def store_groups(folder: Path, counts: EncodeCounts, packed: list[int] | None, data: config.DataConfig) -> None:
    """Store the group of each sequence; if examples were packed, `packed` gives the sequences of each run of examples.

    Raises InsufficientDataError for a source with a weight and no examples.
    """
    kind = group_kind(data)
    if kind is None:
        return
    groups = np.array(counts.groups, np.int32)
    if kind == "source":
        present = set(groups.tolist())
        for number, dataset in enumerate(data.train):
            if number not in present:
                raise InsufficientDataError(
                    f"spec.data.train[{number}].weight: nothing of {dataset.source} is left to learn from, so that it can have "
                    "no share: remove this source, or change checks or overlong"
                )
    if packed is not None:
        groups = np.repeat(np.array([group for group, _ in groupby(counts.groups)], np.int32), packed)
    np.save(folder / GROUPS, groups)


def load_mixture(folder: Path, data: config.DataConfig) -> Mixture | None:
    """The stored groups of the new sequences with their shares; None without groups."""
    kind = group_kind(data)
    if kind is None:
        return None
    groups = np.load(folder / GROUPS)
    if kind == "source":
        return Mixture(groups, [dataset.weight or 0.0 for dataset in data.train])
    present, numbers = np.unique(groups, return_inverse=True)  # a label may have lost all its rows
    return Mixture(numbers.astype(np.int32), [1.0] * len(present))


def with_replay(new: Mixture | None, length: int, replayed: int, replay: config.ReplayConfig | None) -> Mixture | None:
    """The mixture of `length` new sequences followed by `replayed` ones; new groups divide the remaining share as before."""
    if replay is None:
        return new
    groups, shares = new or Mixture(np.zeros(length, np.int32), [1.0])
    scale = (1 - replay.share) / sum(shares)
    replay_groups = np.full(replayed, len(shares), np.int32)
    return Mixture(np.concatenate([groups, replay_groups]), [*(scale * share for share in shares), replay.share])
