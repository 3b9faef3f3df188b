"""The Grafana dashboard, generated from one declaration per panel: its title, unit, queries and description."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SELECTOR = 'namespace=~"$namespace", job=~"$job"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRID_WIDTH = 24
PANEL_WIDTH = PANEL_HEIGHT = 8
PANELS_PER_LINE = GRID_WIDTH // PANEL_WIDTH


class Panel(NamedTuple):
    """A graph with its queries by legend.

    In a query {JOB} is replaced by the selector of the chosen jobs, and BY by the grouping by job.
    """

    title: str
    unit: str
    queries: dict[str, str]
    description: str = ""
    log_scale: bool = False


JOB = "{{namespace}}/{{job}}"  # the legend of a query per job

ROWS: dict[str, tuple[Panel, ...]] = {
    "Training": (
        Panel(
            "Loss",
            "short",
            {JOB: "max BY (finetune_loss{JOB})", f"{JOB} evaluation": "max BY (finetune_eval_loss{JOB})"},
            "Mean loss per token in nats: of the last training step, and on the evaluation data.",
        ),
        Panel("Learning rate", "sci", {JOB: "max BY (finetune_learning_rate{JOB})"}),
        Panel(
            "Gradient norm",
            "short",
            {JOB: "max BY (finetune_grad_norm{JOB})"},
            "L2 norm before clipping. Sudden jumps indicate that training diverges.",
            log_scale=True,
        ),
    ),
    "Throughput": (
        Panel("Tokens per second", "short", {JOB: "sum BY (rate(finetune_tokens_total{JOB}[$__rate_interval]))"}),
        Panel(
            "Step duration by rank",
            "s",
            {
                f"{JOB} rank {{{{rank}}}}": "sum by (namespace, job, rank) "
                "(rate(finetune_step_duration_seconds_sum{JOB}[$__rate_interval])) / sum by (namespace, job, rank) "
                "(rate(finetune_step_duration_seconds_count{JOB}[$__rate_interval]))"
            },
            "All ranks wait for the slowest one in every step.",
        ),
        Panel(
            "Own work in a step by rank",
            "s",
            {f"{JOB} rank {{{{rank}}}}": "max by (namespace, job, rank) (finetune_step_compute_seconds{JOB})"},
            "Waiting for data, and forward passes: the part of a step that does not wait for other ranks.",
        ),
        Panel(
            "Stragglers",
            "short",
            {f"{JOB} rank {{{{rank}}}}": "max by (namespace, job, rank) (finetune_straggler_ratio{JOB})"},
            "Ranks whose own work takes at least 1.5 times as long as the median of the other ranks.",
        ),
        Panel(
            "Share of time waiting for data",
            "percentunit",
            {
                JOB: "sum BY (rate(finetune_data_wait_seconds_total{JOB}[$__rate_interval])) / "
                "sum BY (rate(finetune_step_duration_seconds_sum{JOB}[$__rate_interval]))"
            },
        ),
        Panel("Share of padding", "percentunit", {JOB: "max BY (finetune_padding_ratio{JOB})"}),
        Panel(
            "Progress",
            "percentunit",
            {JOB: "max BY (finetune_step{JOB}) / max BY (finetune_total_steps{JOB})"},
            "Finished optimizer steps as a share of all steps.",
        ),
        Panel(
            "Steps skipped and returns to a checkpoint because of the loss",
            "short",
            {
                f"{JOB} skipped": "max BY (finetune_skipped_steps{JOB})",
                f"{JOB} returned": "max BY (finetune_roll_backs{JOB})",
            },
        ),
        Panel("Epoch", "short", {JOB: "max BY (finetune_epoch{JOB})"}),
    ),
    "Checkpoints": (
        Panel(
            "Age of the newest checkpoint",
            "s",
            {JOB: "time() - max BY (finetune_last_checkpoint_timestamp_seconds{JOB})"},
            "Training time that would be lost if all pods failed now.",
        ),
        Panel(
            "Checkpoint duration by phase",
            "s",
            {
                f"{JOB} {{{{phase}}}}": "sum by (namespace, job, phase) "
                "(rate(finetune_checkpoint_duration_seconds_sum{JOB}[15m])) / sum by (namespace, job, phase) "
                "(rate(finetune_checkpoint_duration_seconds_count{JOB}[15m]))"
            },
            "Training pauses during the snapshot phase only.",
        ),
        Panel("Share of time paused for checkpoints", "percentunit", {
            JOB: "max BY (rate(finetune_checkpoint_stall_seconds_total{JOB}[15m]))"
        }),
        Panel("Checkpoint size", "bytes", {JOB: "max BY (finetune_checkpoint_bytes{JOB})"}),
        Panel("Checkpoint failures per hour", "short", {
            JOB: "sum BY (increase(finetune_checkpoint_failures_total{JOB}[1h]))"
        }),
    ),
    "Operator": (
        Panel("Jobs by phase", "short", {"{{phase}}": "sum by (phase) (finetune_operator_jobs)"}),
        Panel("Pod replacements per hour", "short", {
            "{{reason}}": "sum by (reason) (increase(finetune_operator_restarts_total[1h]))"
        }),
        Panel("In-place restarts of ranks per hour", "short", {
            JOB: "sum BY (increase(finetune_in_place_restarts_total{JOB}[1h]))"
        }),
    ),
}  # fmt: skip


def build_dashboard() -> dict[str, Any]:
    """Build the dashboard as Grafana imports it."""
    return {
        "uid": "finetune-operator",
        "title": "Fine-tuning",
        "description": "Loss, throughput, checkpoints and restarts of FineTuneJobs.",
        "tags": ["finetune-operator"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _layout(),
    }


def _layout() -> list[dict[str, Any]]:
    """Place the panels of each row below its heading, three to a line."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        heading = {"type": "row", "title": title, "collapsed": False, "panels": []}
        panels.append(heading | _position(len(panels), 0, top, GRID_WIDTH, 1))
        top += 1
        for index, panel in enumerate(row):
            line, column = divmod(index, PANELS_PER_LINE)
            position = _position(len(panels), column * PANEL_WIDTH, top + line * PANEL_HEIGHT, PANEL_WIDTH, PANEL_HEIGHT)
            panels.append(_graph(panel) | position)
        top += math.ceil(len(row) / PANELS_PER_LINE) * PANEL_HEIGHT
    return panels


def _position(index: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": index + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _graph(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {"lineWidth": 1, "showPoints": "auto", "spanNulls": True}
    if panel.log_scale:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    targets = []
    for index, (legend, query) in enumerate(panel.queries.items()):
        expression = query.replace("{JOB}", f"{{{SELECTOR}}}").replace(" BY ", " by (namespace, job) ")
        ref_id = chr(ord("A") + index)
        targets.append({"refId": ref_id, "datasource": DATASOURCE, "expr": expression, "legendFormat": legend})
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": targets,
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return [source, _variable("namespace", "finetune_step"), _variable("job", 'finetune_step{namespace=~"$namespace"}')]


def _variable(label: str, series: str) -> dict[str, Any]:
    query = f"label_values({series}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }
