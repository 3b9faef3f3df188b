"""What the exported folder tells of the run, in its `training/`: numbers as JSON, and the pictures that are drawn of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_trainer.export import save_documents
from finetune_trainer.history import History
from finetune_trainer.reports.card import write_card
from finetune_trainer.reports.fit import Fit, judge

__all__ = ["REPORTS", "Fit", "judge", "write_card", "write_curves", "write_documents"]

REPORTS = "training"


def write_curves(folder: Path, history: History) -> None:
    """Writes history.jsonl, loss.png and, if there were evaluations with more than a loss, metrics.png into the folder."""
    # Importing matplotlib takes a second that only the first rank needs to spend, and only in the end.
    from finetune_trainer.reports import pictures

    history.write(folder)
    pictures.loss(history, folder / "loss.png")
    pictures.metrics(history, folder / "metrics.png")


def write_documents(folder: Path, documents: Mapping[str, Any]) -> None:
    """Writes each document as NAME.json into the folder, and a picture beside what is a confusion matrix."""
    from finetune_trainer.reports import pictures

    save_documents(folder, {f"{name}.json": content for name, content in documents.items()})
    for name, content in documents.items():
        if name.endswith("confusion"):
            pictures.confusion(content, folder / f"{name}.png")
