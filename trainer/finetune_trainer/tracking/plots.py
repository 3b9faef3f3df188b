"""Curves and matrices as PNG files, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finetune_trainer.tracking.history import History
from finetune_trainer.training.evaluation import FEW_SHOT

MOST_PLOTS = 24
MOST_NUMBERED = 20  # labels; in a larger matrix numbers cannot be read
MOST_LETTERS = 24  # of a label


def loss(history: History, path: Path) -> None:
    """Loss, learning rate and evaluation loss by step."""
    figure = _figure(9, 5)
    losses = figure.add_subplot()
    rates = losses.twinx()
    steps = [point[0] for point in history.training]
    lines = rates.plot(steps, [point[2] for point in history.training], color="0.75", label="learning rate")
    lines += losses.plot(steps, [point[1] for point in history.training], linewidth=1, label="loss")
    if history.evaluations:
        evaluated, values = zip(*((one.step, one.metrics["loss"]) for one in history.evaluations), strict=True)
        lines += losses.plot(evaluated, values, marker=".", label="evaluation loss")
    losses.set(xlabel="optimizer step", ylabel="loss")
    losses.set_zorder(rates.get_zorder() + 1)
    losses.patch.set_visible(False)
    rates.set_ylabel("learning rate")
    losses.legend(handles=lines)
    figure.savefig(path, dpi=100)


def metrics(history: History, path: Path) -> None:
    """Every other metric of the evaluations by step; no file if there is none.

    Those of single labels (`f1[name]`) are together, and so is what the start made of rows behind examples with what it made
    of the rows alone.
    """
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for step, found, _ in history.evaluations:
        for name, value in found.items():
            base, _, label = name.removeprefix(FEW_SHOT).partition("[")
            if base != "loss":
                curves.setdefault(f"{base} of each label" if label else base, {}).setdefault(name, []).append((step, value))
    if not curves:
        return
    plots = list(curves.items())[:MOST_PLOTS]
    columns = min(3, len(plots))
    rows = math.ceil(len(plots) / columns)
    figure = _figure(4 * columns, 3 * rows)
    for number, (title, of_group) in enumerate(plots, start=1):
        plot = figure.add_subplot(rows, columns, number)
        for name, points in of_group.items():
            plot.plot(*zip(*points, strict=True), marker=".", label=name.partition("[")[2].rstrip("]")[:MOST_LETTERS] or name)
        plot.set_title(title)
        plot.set_xlabel("optimizer step")
        if len(of_group) > 1:
            plot.legend(fontsize="x-small")
    figure.savefig(path, dpi=100)


def confusion(table: Mapping[str, Any], path: Path) -> None:
    """How often each label (rows) was taken for each (columns), as `classes.confusion` has it; coloured by the row's shares."""
    counts, labels = np.array(table["counts"], dtype=np.float64), [name[:MOST_LETTERS] for name in table["labels"]]
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    side = 3 + 0.45 * min(len(labels), 40)
    figure = _figure(side + 1, side)
    plot = figure.add_subplot()
    figure.colorbar(plot.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the row")
    size = "small" if len(labels) <= 2 * MOST_NUMBERED else "xx-small"
    plot.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
    plot.set_yticks(range(len(labels)), labels, fontsize=size)
    plot.set(xlabel="predicted", ylabel="actual")
    if len(labels) <= MOST_NUMBERED:
        for row, column in np.ndindex(counts.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            plot.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=color, fontsize="small")
    figure.savefig(path, dpi=100)


def _figure(width: float, height: float) -> Figure:
    """An empty figure, inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
