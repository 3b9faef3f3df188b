"""Training data with far more rows of one label than of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from finetune_trainer.data.checks.base import Check, always_warn

IMBALANCE_RATIO = 10  # rows of the most frequent label for each row of the rarest

BALANCE = Check(
    name="balance",
    description="with the most frequent label",
    advice="set data.resample: Balanced, or weigh the classes",
    policy=always_warn,
)


class Imbalance(NamedTuple):
    """The rows of the most frequent label, out of all rows."""

    rows: int
    total: int
    detail: str


def find_imbalance(label_balance: Mapping[str, int]) -> Imbalance | None:
    """The imbalance of the labels, from the rows with each in descending order, if it is large enough to be reported."""
    counts = list(label_balance.items())
    if len(counts) < 2:
        return None
    (most_frequent, most), (rarest, fewest) = counts[0], counts[-1]
    if most < IMBALANCE_RATIO * fewest:
        return None
    detail = f"{most / fewest:.0f} times as many have the label {most_frequent!r} as {rarest!r}"
    return Imbalance(most, sum(label_balance.values()), detail)
