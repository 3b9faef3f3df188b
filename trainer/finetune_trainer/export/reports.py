"""What the exported folder tells of the run, in its `training/`: numbers as JSON, and the pictures that are drawn of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_trainer.export.model import save_documents
from finetune_trainer.export.model_card import write_card
from finetune_trainer.tracking.diagnosis import Diagnosis, diagnose
from finetune_trainer.tracking.history import History

__all__ = ["REPORTS", "Diagnosis", "diagnose", "write_card", "write_curves", "write_documents"]

REPORTS = "training"


def write_curves(folder: Path, history: History) -> None:
    """Writes history.jsonl, loss.png and, if there were evaluations with more than a loss, metrics.png into the folder."""
    # Importing matplotlib takes a second that only the first rank needs to spend, and only in the end.
    from finetune_trainer.tracking import plots

    history.write(folder)
    plots.loss(history, folder / "loss.png")
    plots.metrics(history, folder / "metrics.png")


def write_documents(folder: Path, documents: Mapping[str, Any]) -> None:
    """Writes each document as NAME.json into the folder, and a picture beside what is a confusion matrix."""
    from finetune_trainer.tracking import plots

    save_documents(folder, {f"{name}.json": content for name, content in documents.items()})
    for name, content in documents.items():
        if name.endswith("confusion"):
            plots.confusion(content, folder / f"{name}.png")
