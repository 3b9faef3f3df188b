"""Describes the outcome of a local run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.local.job_directory import JobDirectory
from finetune_operator.local.uris import local_path
from finetune_trainer.protocol.outcome import Outcome, Reason

# Failures whose cause may need more than a sentence: the end of the log is printed too.
UNEXPLAINED = (Reason.CRASHED, Reason.INTERNAL_ERROR)
ATTEMPT_BEGINS = re.compile(r" agent \d+: round \d+: starting ")
TRACEBACK = "Traceback (most recent call last):"
MAX_TRACEBACK_LINES = 80
LOG_LINES = 15
LOG_TAIL_BYTES = 65_536
REPORTS = "training"  # the directory of the exported model that the trainer writes its reports to


def combine_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Choose the outcome of the run from those of its nodes.

    If node 0 completed, its outcome counts, because it stores the model. Otherwise the worst one counts, with the progress
    and checkpoint of node 0 where its own are missing.
    """
    first = outcomes[0]
    if first.reason is Reason.COMPLETE:
        return first
    failed = [outcome for outcome in outcomes if outcome.reason is not Reason.COMPLETE]
    worst = min(failed, key=lambda outcome: (outcome.exit_policy.disruption, outcome.reason is Reason.PREEMPTED))
    progress = worst.progress if worst.progress.step else first.progress
    return worst.model_copy(update={"progress": progress, "checkpoint": worst.checkpoint or first.checkpoint})


def summary_lines(outcome: Outcome, directory: JobDirectory, resume_command: str) -> list[str]:
    """Return the lines to print at the end of a run."""
    match outcome.reason:
        case Reason.COMPLETE:
            return list(_completed(outcome))
        case Reason.PREEMPTED | Reason.PREEMPTED_UNSAVED:
            return [f"{_stopped(outcome)}; resume with: {resume_command}"]
        case _:
            return list(_failed(outcome, directory, resume_command))


def _completed(outcome: Outcome) -> Iterator[str]:
    yield f"finished after {outcome.progress.step} steps"
    if outcome.resumed is not None:
        yield _row("resumed", outcome.resumed)
    yield from _metrics(outcome)
    for finding in outcome.data.findings if outcome.data is not None else ():
        yield _row("data", finding)
    if outcome.model is not None:
        model_directory = local_path(outcome.model)
        yield _row("model", model_directory or outcome.model)
        if model_directory is not None:
            yield from _reports(model_directory / REPORTS)


def _metrics(outcome: Outcome) -> Iterator[str]:
    metrics = dict(outcome.metrics)
    if outcome.progress.loss is not None:
        metrics.setdefault("loss", outcome.progress.loss)
    if outcome.progress.eval_loss is not None:
        metrics.setdefault("evalLoss", outcome.progress.eval_loss)
    for name, title in (("loss", "loss"), ("evalLoss", "eval loss"), ("perplexity", "perplexity")):
        if name in metrics:
            yield _row(title, f"{metrics.pop(name):.4f}")
    for name, value in metrics.items():
        yield _row(name, f"{value:.6g}")


def _reports(reports: Path) -> Iterator[str]:
    for title, name in (("loss plot", "loss.png"), ("data page", "data.html")):
        if (reports / name).exists():
            yield _row(title, reports / name)
    report = _read_json(reports / "report.json")
    if report is not None:
        if report["stoppedEarly"]:
            yield _row("stopped", report["stoppedEarly"])
        if report["fit"]["sentence"]:
            yield _row("diagnosis", report["fit"]["sentence"])
    samples = _read_json(reports / "samples.json")  # absent unless spec.evaluation.generation is set
    for sample in samples or ():
        yield _row("sample", f"{sample['prompt']!r} continues with {sample['continuation']!r}")


def _row(title: str, value: object) -> str:
    return f"  {title:<11} {value}"


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _stopped(outcome: Outcome) -> str:
    step, checkpoint = outcome.progress.step, outcome.checkpoint
    if outcome.reason is Reason.PREEMPTED:
        return outcome.message or (f"stopped at step {step}" if step else "stopped before the first step")
    if checkpoint is None:
        return outcome.message or "stopped without a checkpoint"
    if checkpoint.step >= step:
        return f"stopped at once; the checkpoint of step {checkpoint.step}, the last one, is stored"
    if outcome.message:
        return f"{outcome.message}; the newest checkpoint is that of step {checkpoint.step}"
    return f"stopped at step {step}; the work since the checkpoint at step {checkpoint.step} is lost"


def _failed(outcome: Outcome, directory: JobDirectory, resume_command: str) -> Iterator[str]:
    message = outcome.message or outcome.exit_policy.meaning
    yield f"failed ({outcome.reason}): {message}"
    if outcome.checkpoint is not None:
        yield f"the checkpoint at step {outcome.checkpoint.step} is stored; resume with: {resume_command}"
    log_file = directory.log_file(outcome.node or 0)
    if outcome.reason in UNEXPLAINED:
        for line in _last_lines(log_file, message):
            yield f"  {line}"
    yield f"log: {log_file}"


def _last_lines(log_file: Path, message: str) -> list[str]:
    """The end of the last attempt's log, from its last traceback if it has one, without lines that repeat the message."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    begin = max((index for index, line in enumerate(lines) if ATTEMPT_BEGINS.search(line)), default=-1)
    lines = [line for line in lines[begin + 1 :] if message not in line]
    traceback = max((index for index, line in enumerate(lines) if line.startswith(TRACEBACK)), default=None)
    return lines[-LOG_LINES:] if traceback is None else lines[traceback:][-MAX_TRACEBACK_LINES:]
