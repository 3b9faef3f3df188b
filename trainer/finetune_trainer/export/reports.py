"""The reports in the folder `training/` of the exported model: numbers as JSON, plots, and the model card."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.config import TrainSpec
from finetune_trainer.export.model import write_json_files
from finetune_trainer.export.model_card import write_card
from finetune_trainer.objectives import Objective
from finetune_trainer.objectives.multi_task import single_task_spec
from finetune_trainer.preview.page import render_page
from finetune_trainer.preview.report import DataPreview
from finetune_trainer.protocol import heartbeat
from finetune_trainer.tracking.diagnosis import diagnose
from finetune_trainer.tracking.history import History

REPORTS = "training"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSummary:
    """The facts of a finished run that its reports describe."""

    spec: TrainSpec
    objective: Objective
    history: History
    data: DataPreview
    """The data report; it must show no rows, as the model may be published."""
    steps: int
    planned_steps: int
    early_stop_reason: str | None
    exported_step: int


@heartbeat.while_busy()
def write_run_reports(folder: Path, summary: RunSummary) -> None:
    """Write the reports and the model card into the folder of the exported model."""
    diagnosis = diagnose(summary.history)
    log.info("%s", diagnosis.sentence)
    evaluation = summary.history.evaluation_at(summary.exported_step)
    report = {
        "steps": summary.steps,
        "plannedSteps": summary.planned_steps,
        "stoppedEarly": summary.early_stop_reason,
        "exportedStep": summary.exported_step,
        "notes": summary.objective.notes,
        "fit": diagnosis._asdict(),
        "start": summary.history.evaluation_at(0).metrics,
    }
    documents = {
        "data": summary.data.document(),
        "document": summary.spec.document(),
        "facts": summary.objective.encoder.statistics,
        "metrics": evaluation.metrics,
        "report": report,
    }
    reports = folder / REPORTS
    write_curves(reports, summary.history)
    write_documents(reports, documents | evaluation.tables)
    _write_task_documents(folder, summary.spec, summary.objective)
    (reports / "data.html").write_text(render_page(summary.data, "Data of this model"), encoding="utf-8")
    write_card(folder, summary.spec, summary.objective, documents | {"data": summary.data.card()}, reports)


def _write_task_documents(folder: Path, spec: TrainSpec, objective: Objective) -> None:
    """Write the document and the facts of each task next to the task's model, where `predict` reads them."""
    for name, task_objective in objective.members.items():
        if name:
            task_spec = single_task_spec(spec, name)
            documents = {"document": task_spec.document(), "facts": task_objective.encoder.statistics}
            write_documents(folder / name / REPORTS, documents)


def write_curves(folder: Path, history: History) -> None:
    """Write history.jsonl, loss.png and, if evaluations report more than a loss, metrics.png into the folder."""
    # Importing matplotlib takes a second, which only the first rank spends and only at the end.
    from finetune_trainer.tracking import plots

    history.write(folder)
    plots.plot_loss(history, folder / "loss.png")
    plots.plot_metrics(history, folder / "metrics.png")


def write_documents(folder: Path, documents: Mapping[str, Any]) -> None:
    """Write each document as NAME.json into the folder, and each confusion matrix also as a plot."""
    from finetune_trainer.tracking import plots

    write_json_files(folder, {f"{name}.json": content for name, content in documents.items()})
    for name, content in documents.items():
        if name.endswith("confusion"):
            plots.plot_confusion(content, folder / f"{name}.png")
