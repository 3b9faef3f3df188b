"""The head of an adapter: what its outputs stand for is in the reports of its run, and not in the base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_trainer.config.objectives import field_of
from finetune_trainer.inference.pipelines import read_report
from finetune_trainer.objectives.inputs.label_names import label_config

PROBLEM_TYPES = {
    "SingleLabel": "single_label_classification",
    "MultiLabel": "multi_label_classification",
    "Regression": "regression",
}


def label_options(folder: Path) -> dict[str, Any]:
    """Options of `transformers.pipeline` for the base model of an adapter in `folder`; none for a run without labels."""
    labels: list[str] | None = read_report(folder, "facts").get("labels")
    if labels is None:
        return {}
    objective = read_report(folder, "document").get("objective", {})
    options = objective.get(field_of(objective["type"]), {}) if "type" in objective else {}
    overrides = label_config(labels or ["LABEL_0"])
    if "problem" in options:
        overrides["problem_type"] = PROBLEM_TYPES[options["problem"]]
    return {"model_kwargs": {"ignore_mismatched_sizes": True, **overrides}}  # the adapter has its own head
