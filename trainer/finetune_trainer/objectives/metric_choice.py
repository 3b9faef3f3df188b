"""Validates evaluation.metric against the labels of the data, which the document's rules do not know."""

from __future__ import annotations

import re

from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.outcome import ConfigurationError

_LABEL_METRIC = re.compile(r"(?:([^.\[]+)\.)?f1\[(.+)\]")


def validate_label_metric(metric: str, objective: Objective) -> None:
    """Raise ConfigurationError for the F1 of a label that has none; the objective must have its statistics."""
    match = _LABEL_METRIC.fullmatch(metric)
    member = match and objective.members.get(match[1] or "")
    if not match or member is None:
        return
    labels = member.metrics.scored_labels
    if labels is None or match[2] in labels:
        return
    prefix = f"{match[1]}." if match[1] else ""
    names = ", ".join(f"{prefix}f1[{label}]" for label in labels)
    remedy = f"choose one of {names}" if labels else "there are too many labels for an F1 of each: choose another"
    raise ConfigurationError(f"spec.evaluation.metric: {metric} is not reported: {remedy}, or {prefix}f1")
