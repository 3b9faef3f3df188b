"""Prometheus accepts the alerts and the dashboard's queries, and all their metrics exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.chart.conftest import Render

from finetune_operator.codegen.dashboard import build_dashboard
from finetune_operator.codegen.generate import CHART, ROOT
from finetune_operator.controller import metrics as operator_metrics
from finetune_operator.controller.informer_cache import InformerCache
from finetune_trainer.agent import metrics as trainer_metrics

ALERTS = ROOT / CHART / "files/alerts.yaml"
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in build_dashboard()["panels"]
    for target in panel.get("targets", ())
}


def metric_names() -> set[str]:
    operator = operator_metrics.Metrics()
    operator.watch(InformerCache(), lambda: 0.0)
    trainer = trainer_metrics.Metrics("namespace", "job")
    return {family.name for registry in (operator.registry, trainer.registry) for family in registry.collect()}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_panel_queries_existing_metrics(query: str) -> None:
    for name in re.findall(r"\bfinetune_\w+", query):
        assert {name, re.sub(r"_(total|sum|count|bucket)$", "", name)} & metric_names()


def test_alerts_query_existing_metrics() -> None:
    for name in re.findall(r"\bfinetune_[a-z_]+", ALERTS.read_text()):
        assert {name, re.sub(r"_(total|sum|count|bucket)$", "", name)} & metric_names()


def test_dashboard_shows_every_trainer_metric() -> None:
    shown = " ".join(QUERIES.values())
    omitted = {"finetune_samples", "finetune_eval_metric"}  # tokens already show throughput; metrics differ between jobs
    trainer = {name for name in metric_names() if not name.startswith("finetune_operator_")}
    assert [name for name in sorted(trainer - omitted) if name not in shown] == []


def run_promtool(promtool: Path, *arguments: Any) -> None:
    result = subprocess.run([promtool, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_accepts_the_alerts(promtool: Path) -> None:
    run_promtool(promtool, "check", "rules", ALERTS)


def test_prometheus_accepts_the_panels(promtool: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{index}", "expr": query.replace("$__rate_interval", "1m")}
        for index, query in enumerate(QUERIES.values())
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    run_promtool(promtool, "check", "rules", path)


def test_prometheus_rule_contains_the_alerts(render: Render) -> None:
    rule = render("monitoring.prometheusRule.enabled=true")["PrometheusRule", "finetune-operator"]
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())


JOB = '{namespace="team", job="a"}'
HEALTHY = {f"finetune_step{JOB}": "0+1x300", f"finetune_total_steps{JOB}": "1000x300", "finetune_operator_jobs": "1x300"}


@pytest.mark.parametrize(
    ("series", "alerts"),
    [
        ({}, set()),
        ({f"finetune_step{JOB}": "5x300"}, {"FineTuneJobStuck"}),
        ({f"finetune_step{JOB}": "1000x300"}, set()),
        ({"finetune_operator_jobs": "_x300"}, {"FineTuneOperatorAbsent"}),
        ({f"finetune_checkpoint_failures_total{JOB}": "0x290 1x10"}, {"FineTuneCheckpointsFail"}),
        ({f"finetune_last_checkpoint_timestamp_seconds{JOB}": "0x300"}, {"FineTuneCheckpointOld"}),
        ({f"finetune_last_checkpoint_timestamp_seconds{JOB}": "0+60x300"}, set()),
        ({'finetune_operator_restarts_total{reason="Crashed"}': "0+1x300"}, {"FineTuneRestartsOften"}),
        (
            {f"finetune_data_wait_seconds_total{JOB}": "0+40x300", f"finetune_step_duration_seconds_sum{JOB}": "0+60x300"},
            {"FineTuneStarvesForData"},
        ),
        ({f"finetune_data_wait_seconds_total{JOB}": "0+1x300", f"finetune_step_duration_seconds_sum{JOB}": "0+60x300"}, set()),
    ],
    ids=["healthy", "stuck", "finished", "absent", "failing", "old", "recent", "restarts", "starving", "fed"],
)
def test_alert_fires(promtool: Path, tmp_path: Path, series: dict[str, str], alerts: set[str]) -> None:
    names = [rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]]
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names if name in alerts]
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in (HEALTHY | series).items()],
                "promql_expr_test": [{"expr": firing, "eval_time": "295m", "exp_samples": expected}],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps(test))
    run_promtool(promtool, "test", "rules", path)
