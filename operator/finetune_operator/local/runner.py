"""`finetune run`: starts the nodes, shows how it goes, passes Ctrl-C on, and says how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from finetune_operator.api import FineTuneJob
from finetune_operator.local import summary
from finetune_operator.local.devices import gpus, node_environments
from finetune_operator.local.display import Display, display
from finetune_operator.local.node_process import Folder, Node, start
from finetune_operator.local.uris import claims, localized, missing_files

LOOK_SECONDS = 0.25
STRAGGLERS_SECONDS = 20.0  # for the other agents to end after the first one has
KILL_SECONDS = 20.0  # for stragglers to end after they were told to
NEEDED = ("torch", "deepspeed", "transformers")


class RunRefused(Exception):
    """The run cannot start; one sentence a line."""


class _Stops:
    """Ctrl-C and SIGTERM, counted while a run is on."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        self.count += 1


def run(job: FineTuneJob, state: Path, console: Console, again: str, rank_module: str | None = None) -> int:
    """Run the job on this machine until it ends; the exit code that its pods would have.

    State lies in `state`/NAME. `again` is the command to repeat, as the user types it. Raises RunRefused.
    """
    _refuse_what_cannot_run(job)
    folder = Folder(state.absolute() / job.metadata.name)
    folder.path.mkdir(parents=True, exist_ok=True)
    with _locked(folder, job.metadata.name) as lock:
        spec = localized(job.spec.train_spec().document(), Path.cwd())
        folder.document.write_text(json.dumps(spec, indent=2) + "\n")
        return _run(job, folder, lock, console, again, rank_module)


def require_trainer() -> None:
    """Raises RunRefused if the trainer's libraries are not installed."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise RunRefused(
            f"a run on this machine needs {', '.join(absent)}: install it with pip install 'finetune-operator[trainer]'"
        )


def _refuse_what_cannot_run(job: FineTuneJob) -> None:
    require_trainer()
    validation_errors = [sentence for _, sentence in (*claims(job), *missing_files(job, Path.cwd()))]
    if validation_errors:
        raise RunRefused("\n".join(validation_errors))


@contextlib.contextmanager
def _locked(folder: Folder, name: str) -> Iterator[int]:
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunRefused(
                f"{name} runs already with its state in {folder.path}: wait for its end, or stop it with Ctrl-C where it runs"
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


def _run(job: FineTuneJob, folder: Folder, lock: int, console: Console, again: str, rank_module: str | None) -> int:
    workers = job.spec.workers
    environments = node_environments(workers.nodes, workers.processes_per_node, os.environ)
    stops = _Stops()
    with stops.counted():
        nodes = start(job, folder, environments, lock, rank_module)
        screen = display(console)
        try:
            screen.note(_introduction(job, folder, uses_gpus=bool(environments[0]["CUDA_VISIBLE_DEVICES"])))
            _attend(nodes, screen, stops)
        finally:
            screen.close()
            for node in nodes:
                node.stop(signal.SIGKILL)
    outcome = summary.of_the_run([node.outcome() for node in nodes])
    for line in summary.lines(outcome, folder, again):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return outcome.exit_policy.exit_code


def _introduction(job: FineTuneJob, folder: Folder, uses_gpus: bool) -> str:
    workers = job.spec.workers
    ranks = workers.nodes * workers.processes_per_node
    where = "one GPU each" if uses_gpus else "on the CPU"
    too_few = len(gpus(os.environ))
    if too_few and not uses_gpus:
        where += f", as there are {too_few} GPUs and each rank needs one"
    logs = folder.log(0) if workers.nodes == 1 else folder.path / "node-*.log"
    return f"{job.metadata.name}: {_count(workers.nodes, 'node')}, {_count(ranks, 'rank')}, {where}; logs in {logs}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _attend(nodes: list[Node], screen: Display, stops: _Stops) -> None:
    """Until all agents ended: show the newest status and pass Ctrl-C on."""
    told = 0
    hurried: list[signal.Signals] = []
    first_end: float | None = None
    while any(node.running for node in nodes):
        if stops.count > told:
            told = stops.count
            _stop(nodes, screen, told)
        if first_end is None and not all(node.running for node in nodes):
            first_end = time.monotonic()
        if first_end is not None and not told:
            _hurry(nodes, time.monotonic() - first_end, hurried)
        status = nodes[0].status()
        if status is not None:
            screen.show(status)
        time.sleep(LOOK_SECONDS)


def _stop(nodes: list[Node], screen: Display, times: int) -> None:
    screen.note("stopping after a checkpoint; Ctrl-C once more does not wait for it" if times == 1 else "stopping at once")
    for node in nodes:
        node.stop(signal.SIGTERM if times < 3 else signal.SIGKILL)


def _hurry(nodes: list[Node], seconds: float, sent: list[signal.Signals]) -> None:
    """Nobody replaces an agent here: when one has ended, the others must not wait for its return for ever."""
    patience = {signal.SIGTERM: STRAGGLERS_SECONDS, signal.SIGKILL: STRAGGLERS_SECONDS + KILL_SECONDS}
    for number in (number for number, limit in patience.items() if seconds > limit and number not in sent):
        sent.append(number)
        for node in nodes:
            node.stop(number)
