"""The Grafana dashboard, generated so that every panel is one line: what it shows, in which unit, from which metric."""

from __future__ import annotations

from typing import Any, NamedTuple

SELECTOR = 'namespace=~"$namespace", job=~"$job"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 8, 8  # Grafana's grid is 24 wide.


class Panel(NamedTuple):
    """A graph: its queries by legend. In a query {JOB} stands for the chosen jobs, BY for the labels that name one."""

    title: str
    unit: str
    queries: dict[str, str]
    description: str = ""
    log: bool = False


JOB = "{{namespace}}/{{job}}"  # the legend

ROWS: dict[str, tuple[Panel, ...]] = {
    "Learning": (
        Panel(
            "Loss",
            "short",
            {JOB: "max BY (finetune_loss{JOB})", f"{JOB} evaluation": "max BY (finetune_eval_loss{JOB})"},
            "Mean loss per token, in nats, of the last step and on the evaluation data.",
        ),
        Panel("Learning rate", "sci", {JOB: "max BY (finetune_learning_rate{JOB})"}),
        Panel(
            "Gradient norm",
            "short",
            {JOB: "max BY (finetune_grad_norm{JOB})"},
            "L2 norm before clipping; jumps announce a diverging run.",
            log=True,
        ),
    ),
    "Speed": (
        Panel("Tokens per second", "short", {JOB: "sum BY (rate(finetune_tokens_total{JOB}[$__rate_interval]))"}),
        Panel(
            "Step time by rank",
            "s",
            {
                f"{JOB} rank {{{{rank}}}}": "sum by (namespace, job, rank) "
                "(rate(finetune_step_duration_seconds_sum{JOB}[$__rate_interval])) / sum by (namespace, job, rank) "
                "(rate(finetune_step_duration_seconds_count{JOB}[$__rate_interval]))"
            },
            "A rank that is slower than the others holds all of them up.",
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
            "Finished optimizer steps of all steps.",
        ),
        Panel("Epoch", "short", {JOB: "max BY (finetune_epoch{JOB})"}),
    ),
    "Checkpoints": (
        Panel(
            "Age of the newest checkpoint",
            "s",
            {JOB: "time() - max BY (finetune_last_checkpoint_timestamp_seconds{JOB})"},
            "Work that would be lost if all pods died now.",
        ),
        Panel(
            "Checkpoint duration by phase",
            "s",
            {
                f"{JOB} {{{{phase}}}}": "sum by (namespace, job, phase) "
                "(rate(finetune_checkpoint_duration_seconds_sum{JOB}[15m])) / sum by (namespace, job, phase) "
                "(rate(finetune_checkpoint_duration_seconds_count{JOB}[15m]))"
            },
            "Training stands still during snapshot only.",
        ),
        Panel("Share of time stalled by checkpoints", "percentunit", {
            JOB: "max BY (rate(finetune_checkpoint_stall_seconds_total{JOB}[15m]))"
        }),
        Panel("Checkpoint size", "bytes", {JOB: "max BY (finetune_checkpoint_bytes{JOB})"}),
        Panel("Failed checkpoints in an hour", "short", {
            JOB: "sum BY (increase(finetune_checkpoint_failures_total{JOB}[1h]))"
        }),
    ),
    "Operator": (
        Panel("Jobs by phase", "short", {"{{phase}}": "sum by (phase) (finetune_operator_jobs)"}),
        Panel("Pods replaced in an hour", "short", {
            "{{reason}}": "sum by (reason) (increase(finetune_operator_restarts_total[1h]))"
        }),
        Panel("Ranks restarted in place in an hour", "short", {
            JOB: "sum BY (increase(finetune_in_place_restarts_total{JOB}[1h]))"
        }),
    ),
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, graphs in ROWS.items():
        panels.append(_placed({"type": "row", "title": row, "collapsed": False, "panels": []}, len(panels), 0, top, 24, 1))
        top += 1
        for index, graph in enumerate(graphs):
            column, line = index % 3 * WIDTH, top + index // 3 * HEIGHT
            panels.append(_placed(_graph(graph), len(panels), column, line, WIDTH, HEIGHT))
        top += -(-len(graphs) // 3) * HEIGHT
    return {
        "uid": "finetune-operator",
        "title": "Fine-tuning",
        "description": "What FineTuneJobs learn, how fast, and how safely.",
        "tags": ["finetune-operator"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _placed(panel: dict[str, Any], index: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return panel | {"id": index + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _graph(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {"lineWidth": 1, "showPoints": "auto", "spanNulls": True}
    if panel.log:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query.replace("{JOB}", f"{{{SELECTOR}}}").replace(" BY ", " by (namespace, job) "),
            "legendFormat": legend,
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
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
