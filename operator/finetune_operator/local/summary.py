"""How a local run ended, in plain words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.local.node_process import Folder
from finetune_operator.local.uris import path_of
from finetune_trainer.protocol.outcome import Outcome, Reason

LOG_LINES = 15
REPORTS = "training"  # what the trainer calls the folder beside the model


def of_the_run(outcomes: Sequence[Outcome]) -> Outcome:
    """Which of the nodes' last words is the run's: node 0's if all went well, else the worst, with what node 0 knows."""
    first = outcomes[0]
    if first.reason is Reason.COMPLETE:
        return first
    failed = [outcome for outcome in outcomes if outcome.reason is not Reason.COMPLETE]
    worst = min(failed, key=lambda outcome: (outcome.exit_policy.disruption, outcome.reason is Reason.PREEMPTED))
    progress = worst.progress if worst.progress.step else first.progress
    return worst.model_copy(update={"progress": progress, "checkpoint": worst.checkpoint or first.checkpoint})


def lines(outcome: Outcome, folder: Folder, again: str) -> list[str]:
    """What to print; `again` is the command that resumes the run."""
    match outcome.reason:
        case Reason.COMPLETE:
            return list(_complete(outcome))
        case Reason.PREEMPTED | Reason.PREEMPTED_UNSAVED:
            return [_stopped(outcome, again)]
        case _:
            return list(_failed(outcome, folder, again))


def _complete(outcome: Outcome) -> Iterator[str]:
    yield f"finished after {outcome.progress.step} steps"
    metrics = dict(outcome.metrics)
    for name, value in (("loss", outcome.progress.loss), ("evalLoss", outcome.progress.eval_loss)):
        if value is not None:
            metrics.setdefault(name, value)
    loss = metrics.get("evalLoss", metrics.get("loss"))
    if loss is not None and loss < 100:
        metrics.setdefault("perplexity", math.exp(loss))
    for name, title in (("loss", "loss"), ("evalLoss", "eval loss"), ("perplexity", "perplexity")):
        if name in metrics:
            yield f"  {title:<11} {metrics.pop(name):.4f}"
    for name, value in metrics.items():
        yield f"  {name:<11} {value:.6g}"
    for finding in outcome.data.findings if outcome.data is not None else ():
        yield f"  {'data':<11} {finding}"
    if outcome.model is not None:
        model = path_of(outcome.model)
        yield f"  {'model':<11} {model or outcome.model}"
        yield from _reports(model) if model else ()


def _reports(model: Path) -> Iterator[str]:
    plot = model / REPORTS / "loss.png"
    if plot.exists():
        yield f"  {'loss plot':<11} {plot}"
    found = _json(model / REPORTS / "report.json")
    if found is not None:
        for title, sentence in (("stopped", found["stoppedEarly"]), ("diagnosis", found["fit"]["sentence"])):
            if sentence:
                yield f"  {title:<11} {sentence}"
    for sample in _json(model / REPORTS / "samples.json") or ():  # a run that was asked for none has none
        yield f"  {'sample':<11} {sample['prompt']!r} goes on with {sample['continuation']!r}"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _stopped(outcome: Outcome, again: str) -> str:
    step = outcome.progress.step
    if outcome.reason is Reason.PREEMPTED and outcome.checkpoint is not None:
        what = f"stopped at step {max(step, outcome.checkpoint.step)} with a checkpoint"
    elif outcome.reason is Reason.PREEMPTED and step == 0:
        what = "stopped before the first step"
    elif outcome.reason is Reason.PREEMPTED:
        what = f"stopped at step {step}"
    elif outcome.checkpoint is not None:
        what = f"stopped at step {step}; the work since the checkpoint of step {outcome.checkpoint.step} is lost"
    else:
        what = "stopped without a checkpoint"
    return f"{what}; the same command resumes: {again}"


def _failed(outcome: Outcome, folder: Folder, again: str) -> Iterator[str]:
    log = folder.log(outcome.node or 0)
    yield f"failed ({outcome.reason}): {outcome.message or outcome.exit_policy.meaning}"
    if outcome.checkpoint is not None:
        yield f"the checkpoint of step {outcome.checkpoint.step} is stored; this resumes from it: {again}"
    tail = _tail(log)
    yield f"{log} {'ends with' if tail else 'is empty'}:"
    yield from (f"  {line}" for line in tail)


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
