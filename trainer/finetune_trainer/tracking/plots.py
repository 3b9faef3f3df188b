"""Curves and confusion matrices as PNG files; equal numbers give equal bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finetune_trainer.tracking.history import FEW_SHOT, History

MAX_PLOTS = 24
MAX_LABELS_WITH_COUNTS = 20  # the counts of a larger matrix are illegible
MAX_LABEL_CHARACTERS = 24

Curve = list[tuple[int, float]]
"""Values by step."""


def plot_loss(history: History, path: Path) -> None:
    """Plot loss, learning rate and evaluation loss by step."""
    figure = _new_figure(9, 5)
    loss_axes = figure.add_subplot()
    rate_axes = loss_axes.twinx()
    steps = [point[0] for point in history.training]
    lines = rate_axes.plot(steps, [point[2] for point in history.training], color="0.75", label="learning rate")
    lines += loss_axes.plot(steps, [point[1] for point in history.training], linewidth=1, label="loss")
    if history.evaluations:
        evaluated_steps = [record.step for record in history.evaluations]
        losses = [record.metrics["loss"] for record in history.evaluations]
        lines += loss_axes.plot(evaluated_steps, losses, marker=".", label="evaluation loss")
    loss_axes.set(xlabel="optimizer step", ylabel="loss")
    loss_axes.set_zorder(rate_axes.get_zorder() + 1)
    loss_axes.patch.set_visible(False)
    rate_axes.set_ylabel("learning rate")
    loss_axes.legend(handles=lines)
    figure.savefig(path, dpi=100)


def plot_metrics(history: History, path: Path) -> None:
    """Plot every evaluation metric but the loss by step; writes no file if there is none.

    Metrics of single labels (`f1[name]`) share a plot, and so do the zero-shot and few-shot values of a metric.
    """
    plots = list(_curves_by_plot(history).items())[:MAX_PLOTS]
    if not plots:
        return
    columns = min(3, len(plots))
    rows = math.ceil(len(plots) / columns)
    figure = _new_grid(rows, columns)
    for number, (title, curves) in enumerate(plots, start=1):
        axes = figure.add_subplot(rows, columns, number)
        for name, curve in curves.items():
            label = name.partition("[")[2].rstrip("]")[:MAX_LABEL_CHARACTERS] or name
            axes.plot(*zip(*curve, strict=True), marker=".", label=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(title)
        axes.set_xlabel("optimizer step")
        if len(curves) > 1:
            axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=100)


def _curves_by_plot(history: History) -> dict[str, dict[str, Curve]]:
    """For each plot's title the curves in it by the name of the metric."""
    plots: dict[str, dict[str, Curve]] = {}
    for record in history.evaluations:
        for name, value in record.metrics.items():
            base, _, label = name.removeprefix(FEW_SHOT).partition("[")
            if base == "loss":
                continue
            title = f"{base} of each label" if label else base
            plots.setdefault(title, {}).setdefault(name, []).append((record.step, value))
    return plots


def plot_confusion(table: Mapping[str, Any], path: Path) -> None:
    """Plot a confusion matrix: actual labels in rows, predicted ones in columns, colored by the share of the row.

    `table` has the labels and counts that `objectives.metrics.classification` reports.
    """
    counts = np.array(table["counts"], dtype=np.float64)
    labels = [name[:MAX_LABEL_CHARACTERS] for name in table["labels"]]
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    side = 3 + 0.45 * min(len(labels), 40)
    figure = _new_figure(side + 1, side)
    axes = figure.add_subplot()
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the row")
    font_size = "small" if len(labels) <= 2 * MAX_LABELS_WITH_COUNTS else "xx-small"
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=font_size)
    axes.set_yticks(range(len(labels)), labels, fontsize=font_size)
    axes.set(xlabel="predicted", ylabel="actual")
    if len(labels) <= MAX_LABELS_WITH_COUNTS:
        for row, column in np.ndindex(counts.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=color, fontsize="small")
    figure.savefig(path, dpi=100)


def _new_grid(rows: int, columns: int) -> Figure:
    """An empty figure for plots of 4 x 3 inches."""
    # Matplotlib's constrained layout takes three times as long as drawing, and these plots have no labels of unknown size.
    width, height = 4.0 * columns, 3.0 * rows
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - 0.35 / height, wspace=0.23, hspace=0.4
    )
    return figure


def _new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
