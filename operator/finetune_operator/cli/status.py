"""`finetune status`: prints the status of a job."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from finetune_operator.api import GROUP, PLURAL, Condition, FineTuneJob, JobStatus
from finetune_operator.cli.command import CommandError, Subparsers, add_command
from finetune_operator.cli.kubectl import add_kubectl_arguments, run_kubectl


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    add_kubectl_arguments(add_command(subparsers, "status", execute, "Print the status of a job."))


def execute(options: argparse.Namespace) -> int:
    """Print the progress and the conditions of one job."""
    status = _get_job(options).status
    console = Console()
    for line in summary_lines(status):
        console.print(line, highlight=False, markup=False)
    console.print(_condition_table(status.conditions), markup=False)
    return 0


def _get_job(options: argparse.Namespace) -> FineTuneJob:
    arguments = ["get", f"{PLURAL}.{GROUP}", options.job, "--output=json"]
    answer = run_kubectl(options, arguments, capture_output=True)
    if answer.returncode != 0:
        last_line = answer.stderr.strip().rpartition("\n")[2]
        raise CommandError(last_line)
    document: dict[str, Any] = json.loads(answer.stdout)
    try:
        return FineTuneJob.model_validate(document)
    except ValidationError:
        raise CommandError(
            f"{options.job} was created by another version of the operator: use the finetune command of that version"
        ) from None


def summary_lines(status: JobStatus) -> list[str]:
    """One line per known fact: phase, progress, checkpoint, model, restarts and failure."""
    facts: list[tuple[str, object]] = [("phase", status.phase), ("reason", status.reason), ("ready", status.workers.summary)]
    if (progress := status.progress) is not None:
        facts += [
            ("step", f"{progress.step}/{progress.total_steps} ({progress.percent}%)"),
            ("loss", progress.loss),
            ("eval loss", progress.eval_loss),
            ("remaining", status.eta),
        ]
    if (checkpoint := status.checkpoint) is not None:
        facts.append(("checkpoint", f"step {checkpoint.step}, {checkpoint.time}"))
    facts += [("model", status.model), ("restarts", status.restarts.total or None)]
    if (failure := status.failure) is not None:
        facts.append(("failure", f"{failure.reason}: {failure.message}"))
    return [f"{name:<12}{value}" for name, value in facts if value is not None]


def _condition_table(conditions: list[Condition]) -> Table:
    table = Table("condition", "status", "reason", "since", "message", box=None, padding=(0, 2, 0, 0))
    for condition in conditions:
        table.add_row(condition.type, condition.status, condition.reason, condition.last_transition_time, condition.message)
    return table
