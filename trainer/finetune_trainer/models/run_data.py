"""The data of a run with the objective that reads it: the part of a run that `finetune data` shares."""

from __future__ import annotations

from typing import NamedTuple

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.progress import ReportProgress
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models.assembly import build_objective
from finetune_trainer.models.packing_choice import settle_packing
from finetune_trainer.objectives import Objective
from finetune_trainer.objectives.metric_choice import validate_label_metric


class RunData(NamedTuple):
    """Prepared data, and what it was prepared with."""

    spec: TrainSpec
    """The document with the choice of packing that its model allows."""
    objective: Objective
    prepared: Prepared


def prepare_run_data(spec: TrainSpec, resolver: SourceResolver, report_progress: ReportProgress) -> RunData:
    """Prepare the document's data; raises the errors of `build_objective`, `prepare` and `validate_label_metric`."""
    objective = build_objective(spec, resolver)
    settled = settle_packing(spec, objective, resolver)
    prepared = prepare(settled, objective.encoder, resolver, report_progress)
    validate_label_metric(spec.evaluation.metric, objective)
    return RunData(settled, objective, prepared)
