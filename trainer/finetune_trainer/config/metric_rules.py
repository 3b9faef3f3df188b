"""Rules that evaluation.metric names a metric of the objective: without them a run would fail at its first evaluation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finetune_trainer.config.base import Rule
from finetune_trainer.config.objectives import CONFIGS, ENCODER_SHARING, field_of
from finetune_trainer.config.objectives.base import ReportedMetrics
from finetune_trainer.config.training import FOREIGN_PREFIX

METRIC = "self.evaluation.metric"
_NO_PREFIX = f" (names have no prefix {FOREIGN_PREFIX})"
_PLACEHOLDER = re.compile(r"\[[A-Z]+\]")  # of the name of a label


def metric_rules() -> tuple[Rule, ...]:
    """One rule for each objective that says which metrics it reports, and one for the tasks of MultiTask."""
    rules = []
    for name, config in CONFIGS.items():
        if config.reported_metrics:
            reported = _is_reported(config.reported_metrics, f"self.objective.{field_of(name)}", "")
            rules.append(
                Rule(
                    f"self.objective.type != '{name}' || {reported}",
                    f"{name} reports no such metric: set evaluation.metric to one of {_describe(config.reported_metrics)}"
                    f"{_NO_PREFIX}",
                    "evaluation.metric",
                )
            )
    return (*rules, _multi_task_rule())


def _multi_task_rule() -> Rule:
    of_tasks = []
    for name in ENCODER_SHARING:
        reported = _is_reported(CONFIGS[name].reported_metrics, f"t.{field_of(name)}", "t.name + '.' + ")
        of_tasks.append(f"(t.type == '{name}' && ({reported}))")
    return Rule(
        f"self.objective.type != 'MultiTask' || {METRIC} == 'loss' || self.objective.tasks.exists(t, {' || '.join(of_tasks)})",
        "no task reports such a metric: set evaluation.metric to loss, or to TASK.METRIC with a metric of the task's objective"
        f"{_NO_PREFIX}",
        "evaluation.metric",
    )


def _is_reported(metrics: Sequence[ReportedMetrics], section: str, prefix: str) -> str:
    """CEL: whether the metric is one of these; `section` is the objective's section and `prefix` an expression."""
    alternatives = []
    for group in metrics:
        exact = ", ".join(f"{prefix}'{name}'" for name in group.names if not _PLACEHOLDER.search(name))
        expression = f"{METRIC} in [{exact}]"
        for name in group.names:
            if _PLACEHOLDER.search(name):
                start = f"{prefix}'{_PLACEHOLDER.split(name)[0]}['"
                expression = f"({expression} || {METRIC}.startsWith({start}) && {METRIC}.endsWith(']'))"
        if group.condition:
            is_on = group.condition.format(section=section)
            expression = f"(has({section}) ? {is_on} : {str(group.by_default).lower()}) && {expression}"
        alternatives.append(f"({expression})")
    return " || ".join(alternatives)


def _describe(metrics: Sequence[ReportedMetrics]) -> str:
    """The names of the metrics, with what they need."""
    parts = []
    for group in metrics:
        names = ", ".join(group.names)
        parts.append(f"{names} (with {group.needs})" if group.needs else names)
    return ", ".join(parts)
