"""`finetune run`: starts the nodes, shows their progress, forwards Ctrl-C and reports the outcome."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from finetune_operator.api import FineTuneJob
from finetune_operator.local.devices import node_environments, visible_gpus
from finetune_operator.local.display import Display, create_display
from finetune_operator.local.errors import LocalRunError
from finetune_operator.local.job_directory import JobDirectory
from finetune_operator.local.node_process import NodeProcess, start_nodes
from finetune_operator.local.summary import combine_outcomes, summary_lines
from finetune_operator.local.trainer_commands import require_trainer
from finetune_operator.local.uris import cluster_only_uris, missing_files, resolve_file_uris
from finetune_trainer.protocol.outcome import RunStatus

POLL_SECONDS = 0.25
STEPPING = ("Training", "Evaluating")  # activities that a stop ends with a checkpoint
# Once an agent has exited, the remaining ones get SIGTERM after the first delay and SIGKILL after the second.
TERMINATE_AFTER_SECONDS = 20.0
KILL_AFTER_SECONDS = 40.0


def run(job: FineTuneJob, state: Path, console: Console, resume_command: str, rank_module: str | None = None) -> int:
    """Run the job on this machine until it ends; returns the exit code its pods would have.

    The run keeps its logs and scratch files in `state`/NAME. Raises LocalRunError if it cannot start.
    """
    require_trainer()
    _validate_uris(job)
    directory = JobDirectory(state.absolute() / job.metadata.name)
    directory.path.mkdir(parents=True, exist_ok=True)
    with directory.locked(lambda sentence: console.print(sentence, highlight=False, markup=False, soft_wrap=True)) as lock:
        document = resolve_file_uris(job.spec.train_document(), Path.cwd())
        directory.document.write_text(json.dumps(document, indent=2) + "\n")
        nodes = _run_nodes(job, directory, lock, console, rank_module)
        outcome = combine_outcomes([node.outcome() for node in nodes])
        for line in summary_lines(outcome, directory, resume_command):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return outcome.exit_policy.exit_code


def _validate_uris(job: FineTuneJob) -> None:
    errors = cluster_only_uris(job) + [sentence for _, sentence in missing_files(job, Path.cwd())]
    if errors:
        raise LocalRunError("\n".join(errors))


def _run_nodes(
    job: FineTuneJob, directory: JobDirectory, lock: int, console: Console, rank_module: str | None
) -> list[NodeProcess]:
    """Start all nodes and wait until they have exited."""
    workers = job.spec.workers
    environments = node_environments(workers.nodes, workers.processes_per_node, os.environ)
    with _count_stop_signals() as stop_signals:
        nodes = start_nodes(job, directory, environments, lock, rank_module)
        display = create_display(console)
        try:
            display.print_message(_start_message(job, directory, environments[0]))
            _wait_for_nodes(nodes, display, stop_signals)
        finally:
            display.close()
            for node in nodes:
                node.send_signal(signal.SIGKILL)
    return nodes


class _StopSignals:
    """The number of Ctrl-C and SIGTERM received so far."""

    def __init__(self) -> None:
        self.count = 0

    def handle(self, *_: object) -> None:
        """Count one signal; the handler for `signal.signal`."""
        self.count += 1


@contextlib.contextmanager
def _count_stop_signals() -> Iterator[_StopSignals]:
    """Count SIGINT and SIGTERM instead of dying from them; restores the previous handlers at the end."""
    stop_signals = _StopSignals()
    previous = {number: signal.signal(number, stop_signals.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start_message(job: FineTuneJob, directory: JobDirectory, environment: Mapping[str, str]) -> str:
    workers = job.spec.workers
    nodes = _count(workers.nodes, "node")
    ranks = _count(workers.nodes * workers.processes_per_node, "rank")
    if environment["CUDA_VISIBLE_DEVICES"]:
        devices = "one GPU each"
    elif gpus := len(visible_gpus(os.environ)):
        devices = f"on the CPU, because there are only {_count(gpus, 'GPU')} and each rank needs one"
    else:
        devices = "on the CPU"
    logs = directory.log_file(0) if workers.nodes == 1 else directory.path / "node-*.log"
    return f"{job.metadata.name}: {nodes}, {ranks}, {devices}; logs in {logs}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _wait_for_nodes(nodes: list[NodeProcess], display: Display, stop_signals: _StopSignals) -> None:
    """Wait until all agents have exited; meanwhile show the status, forward Ctrl-C and stop the last agents."""
    forwarded = 0
    sent: list[signal.Signals] = []
    first_exit: float | None = None
    latest = RunStatus()
    while any(node.is_running for node in nodes):
        if stop_signals.count > forwarded:
            forwarded = stop_signals.count
            _forward_stop(nodes, display, forwarded, latest.activity)
        if first_exit is None and not all(node.is_running for node in nodes):
            first_exit = time.monotonic()
        if first_exit is not None and not forwarded:
            _stop_remaining_nodes(nodes, time.monotonic() - first_exit, sent)
        status = nodes[0].status()
        if status is not None:
            if status.checkpoint_error not in (None, latest.checkpoint_error):
                display.print_message(f"checkpoint failed: {status.checkpoint_error}")
            if status.restart_cause not in (None, latest.restart_cause):
                display.print_message(f"restarted: {status.restart_cause}")
            display.show(status)
            latest = status
        time.sleep(POLL_SECONDS)


def _forward_stop(nodes: list[NodeProcess], display: Display, times: int, activity: str) -> None:
    """Forward the first and second Ctrl-C as SIGTERM, which the agent distinguishes, and later ones as SIGKILL.

    `activity` is what the run does at this time.
    """
    if times > 1:
        display.print_message("stopping without a checkpoint" if activity in STEPPING else "stopping at once")
    elif activity in STEPPING:
        display.print_message("stopping after a checkpoint; press Ctrl-C again to stop without one")
    else:
        display.print_message(f"stopping while {activity.lower()}; press Ctrl-C again to stop at once")
    for node in nodes:
        node.send_signal(signal.SIGTERM if times < 3 else signal.SIGKILL)


def _stop_remaining_nodes(nodes: list[NodeProcess], seconds: float, sent: list[signal.Signals]) -> None:
    """Stop the agents that outlive the first by `seconds`.

    On a cluster they wait for a replacement of the pod that ended; here no replacement comes.
    """
    for number, limit in ((signal.SIGTERM, TERMINATE_AFTER_SECONDS), (signal.SIGKILL, KILL_AFTER_SECONDS)):
        if seconds > limit and number not in sent:
            sent.append(number)
            for node in nodes:
                node.send_signal(number)
