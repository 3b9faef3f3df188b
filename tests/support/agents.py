"""Agents as real processes, whose ranks are real processes too (`fake_rank`).

Importing torch takes longer than a test, so one process does it once and each agent is a fork of that. It is not the fork
server of `ranks`, which has to import much more.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from finetune_trainer.agent.ports import free_ports
from finetune_trainer.agent.settings import Limits, Settings
from finetune_trainer.agent.stop_signals import StopSignals
from finetune_trainer.protocol.outcome import Outcome, RunStatus

FAKE_RANK = Path(__file__).parent
LIMITS = Limits(tick=0.05, first_cause=0.5, kill_grace=0.2, farewell=3.0, reconnect_most=0.5)
PATIENCE = 30.0

Seen = TypeVar("Seen")


def wait_for(look: Callable[[], Seen | None], what: str) -> Seen:
    """The first thing that `look` finds."""
    until = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < until, f"{what}: not within {PATIENCE:.0f} s"
        time.sleep(0.02)
    return seen


class Nursery:
    """The process that agents are forked from."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_fork_agents, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, *question: Any) -> Any:
        self._pipe.send(question)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)


def _fork_agents(pipe: Connection) -> None:
    from finetune_trainer.agent import command

    os.environ["PYTHONPATH"] = str(FAKE_RANK)
    while True:
        try:
            match pipe.recv():
                case ("start", settings):
                    pid = os.fork()
                    if pid == 0:
                        pipe.close()
                        stops = StopSignals()
                        stops.install()
                        os._exit(command.run(settings, stops))
                    pipe.send(pid)
                case ("exit code", pid):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    pipe.send(os.waitstatus_to_exitcode(status) if ended else None)
        except EOFError:
            return


class Agent:
    """One started agent."""

    def __init__(self, nursery: Nursery, settings: Settings) -> None:
        self.settings = settings
        self._nursery = nursery
        self.pid: int = nursery.ask("start", settings)
        self.code: int | None = None

    @property
    def ended(self) -> bool:
        if self.code is None:
            self.code = self._nursery.ask("exit code", self.pid)
        return self.code is not None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and the end of it."""
        if not self.ended:
            self.signal(signal.SIGKILL)
            wait_for(lambda: self.ended, "an agent's death")

    def end(self) -> Outcome:
        """The last word of an agent that ends by itself; its exit code is that of the outcome."""
        wait_for(lambda: self.ended, f"the end of agent {self.settings.node_rank}")
        assert self.settings.termination_log is not None
        outcome = Outcome.model_validate_json(self.settings.termination_log.read_bytes())
        assert self.code == outcome.exit_policy.exit_code
        return outcome

    def status(self) -> RunStatus:
        return RunStatus.model_validate_json(self.get("/progress"))

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.http_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())


class Cluster:
    """The nodes of one job: what their ranks shall do, and the notes these leave."""

    def __init__(self, nursery: Nursery, folder: Path, nodes: int, per_node: int, limits: Limits, lives: dict[int, list[str]]):
        self._nursery, self._folder = nursery, folder
        self._nodes, self._per_node, self._limits = nodes, per_node, limits
        self._store_port = free_ports(1)[0]
        self._started: list[Agent] = []
        self.shared = folder / "shared"
        self.shared.mkdir()
        (folder / "train.json").write_text(json.dumps(lives))

    def start(self, node: int) -> Agent:
        settings = Settings(
            document=self._folder / "train.json",
            namespace="research",
            job="demo",
            node_rank=node,
            nodes=self._nodes,
            processes_per_node=self._per_node,
            rendezvous_host="localhost",
            rendezvous_port=self._store_port,
            work_dir=self._folder / f"work-{node}",
            cache_dir=self.shared,
            http_port=free_ports(1)[0],
            termination_log=self._folder / f"termination-{node}",
            rank_module="fake_rank",
            limits=self._limits,
        )
        self._started.append(Agent(self._nursery, settings))
        return self._started[-1]

    def start_all(self) -> list[Agent]:
        return [self.start(node) for node in range(self._nodes)]

    def life(self, rank: int, life: int) -> dict[str, Any]:
        """What a rank was given in that life, once it lives."""
        note = self.shared / f"life-{rank}-{life}"
        wait_for(note.exists, f"life {life} of rank {rank}")
        return dict(json.loads(note.read_text()))

    def lives(self, rank: int) -> int:
        return len(list(self.shared.glob(f"life-{rank}-*")))

    def finish(self) -> None:
        """Let ranks that train complete."""
        (self.shared / "finish").touch()

    def close(self) -> None:
        for agent in self._started:
            agent.kill()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
