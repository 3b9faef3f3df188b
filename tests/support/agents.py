"""Agents as real processes, whose ranks are real processes too: `fake_rank`, or the trainer.

Importing torch takes longer than a test, so one process imports it once and forks every agent. It is not the fork server of
`ranks`, which has to import much more.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import urllib.request
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.waiting import TIMEOUT_SECONDS, wait_for

from finetune_trainer.agent.ports import free_ports
from finetune_trainer.agent.settings import Limits, Settings
from finetune_trainer.agent.stop_signals import StopSignals
from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.config.preflight import PreflightConfig
from finetune_trainer.protocol.outcome import Outcome, Reason, RunStatus

FAKE_RANK = Path(__file__).parent
FAKE_RANKS = {"PYTHONPATH": str(FAKE_RANK)}
REAL_RANKS = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
REAL_RANK_SECONDS = 600.0  # until one has imported its libraries or finished its run on a machine with other work
LIMITS = Limits(poll_interval=0.05, share_interval=0.2, cause_delay=0.5, kill_grace=0.2, max_reconnect_pause=0.5)


class ForkServer:
    """The process that forks the agents."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(target=_fork_agents, args=(child_pipe,), daemon=True)
        self._process.start()
        child_pipe.close()

    def start(self, settings: Settings, environment: Mapping[str, str], log_file: Path | None = None) -> int:
        """Fork an agent with these environment variables, whose output goes to a file if there is one; returns its pid."""
        self._pipe.send(("start", settings, dict(environment), log_file))
        pid: int = self._pipe.recv()
        return pid

    def exit_code(self, pid: int) -> int | None:
        """The exit code of an agent; None while it runs."""
        self._pipe.send(("exit code", pid))
        code: int | None = self._pipe.recv()
        return code

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)


def _fork_agents(pipe: Connection) -> None:
    from finetune_trainer.agent import cli

    while True:
        try:
            match pipe.recv():
                case ("start", settings, environment, log_file):
                    pid = os.fork()
                    if pid == 0:
                        pipe.close()
                        os.environ.update(environment)
                        if log_file is not None:
                            _write_output_to(log_file)
                        stops = StopSignals()
                        stops.install()
                        os._exit(cli.run(settings, stops))
                    pipe.send(pid)
                case ("exit code", pid):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    pipe.send(os.waitstatus_to_exitcode(status) if ended else None)
        except EOFError:
            return


def _write_output_to(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)


class Agent:
    """A started agent, whose ranks are fakes."""

    def __init__(
        self, fork_server: ForkServer, settings: Settings, environment: Mapping[str, str] = FAKE_RANKS,
        log_file: Path | None = None, patience: float = TIMEOUT_SECONDS,
    ) -> None:  # fmt: skip
        self.settings, self._patience = settings, patience
        self._fork_server = fork_server
        self.pid = fork_server.start(settings, environment, log_file)
        self.exit_code: int | None = None

    @property
    def has_ended(self) -> bool:
        if self.exit_code is None:
            self.exit_code = self._fork_server.exit_code(self.pid)
        return self.exit_code is not None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end of the process."""
        if not self.has_ended:
            self.signal(signal.SIGKILL)
            wait_for(lambda: self.has_ended, "the death of an agent")

    def wait_for_exit(self) -> int:
        """The exit code of an agent that ends by itself."""
        wait_for(lambda: self.has_ended, f"the end of agent {self.settings.node_rank}", self._patience)
        assert self.exit_code is not None
        return self.exit_code

    def wait(self) -> Outcome:
        """The termination message of an agent that ends by itself; checks that its exit code matches."""
        self.wait_for_exit()
        assert self.settings.termination_log is not None
        outcome = Outcome.model_validate_json(self.settings.termination_log.read_bytes())
        assert self.exit_code == outcome.exit_policy.exit_code
        return outcome

    def status(self) -> RunStatus:
        return RunStatus.model_validate_json(self.get("/progress"))

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.http_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())


class RealAgent(Agent):
    """A started agent whose ranks run the trainer. Its files are in the folder of the document, which all nodes share."""

    def __init__(
        self, fork_server: ForkServer, document: Path, store_port: int, *, node: int = 0, nodes: int = 1, per_node: int = 1,
        limits: Limits,
    ) -> None:  # fmt: skip
        folder = document.parent
        starts = len(list(folder.glob(f"agent-{node}-*.log")))
        self._log_file = folder / f"agent-{node}-{starts}.log"
        self._log_file.touch()
        settings = Settings(
            document=document,
            namespace="tests",
            job="tiny",
            node_rank=node,
            nodes=nodes,
            processes_per_node=per_node,
            rendezvous_host="127.0.0.1",
            rendezvous_port=store_port,
            work_dir=folder / f"work-{node}",
            cache_dir=folder / "cache",
            http_port=0,
            termination_log=folder / f"termination-{node}",
            limits=limits,
        )
        super().__init__(fork_server, settings, REAL_RANKS, self._log_file, REAL_RANK_SECONDS)

    @property
    def log(self) -> str:
        """The output of the agent and its ranks."""
        return self._log_file.read_text()

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until the log has a text, so many times."""

        def look() -> bool:
            has_ended = self.has_ended  # looked up first: the last lines are written before the end
            is_logged = self.log.count(text) >= count
            assert is_logged or not has_ended, self.log
            return is_logged

        wait_for(look, text, REAL_RANK_SECONDS)

    def stop(self) -> Outcome:
        """Stop the agent as the deletion of its pod does; returns its outcome."""
        self.signal(signal.SIGTERM)
        return self.wait()


class Cluster:
    """The nodes of one job. `behaviors` has the behaviors of each rank's attempts, which leave records in a shared folder."""

    def __init__(
        self, fork_server: ForkServer, folder: Path, nodes: int, per_node: int, behaviors: dict[int, list[str]], *,
        limits: Limits, hang: HangLimits, preflight: PreflightConfig | None = None,
    ) -> None:  # fmt: skip
        self.preflight = preflight
        self._fork_server, self._folder = fork_server, folder
        self._nodes, self._per_node, self._limits, self._hang = nodes, per_node, limits, hang
        self._store_port = free_ports(1)[0]
        self._started: list[Agent] = []
        self.shared = folder / "shared"
        self.shared.mkdir()
        (folder / "train.json").write_text(json.dumps(behaviors))

    def start(self, node: int, nodes: int | None = None) -> Agent:
        """Start the agent of a node; with `nodes`, the command line has another number of nodes."""
        settings = Settings(
            document=self._folder / "train.json",
            namespace="research",
            job="demo",
            node_rank=node,
            nodes=nodes or self._nodes,
            processes_per_node=self._per_node,
            rendezvous_host="localhost",
            rendezvous_port=self._store_port,
            work_dir=self._folder / f"work-{node}",
            cache_dir=self.shared,
            http_port=free_ports(1)[0],
            termination_log=self._folder / f"termination-{node}",
            rank_module="fake_rank",
            limits=self._limits,
            hang=self._hang,
            preflight=self.preflight,
            preflight_module="fake_benchmark",
        )
        self._started.append(Agent(self._fork_server, settings))
        return self._started[-1]

    def start_all(self) -> list[Agent]:
        return [self.start(node) for node in range(self._nodes)]

    def record(self, rank: int, attempt: int) -> dict[str, Any]:
        """The arguments and pid of a rank in its given attempt, from 0; waits until it has started."""
        path = self.shared / f"attempt-{rank}-{attempt}"
        wait_for(path.exists, f"attempt {attempt} of rank {rank}")
        return dict(json.loads(path.read_text()))

    def attempts(self, rank: int) -> int:
        """How often a rank was started."""
        return len(list(self.shared.glob(f"attempt-{rank}-*")))

    def finish(self) -> None:
        """Let ranks that train complete."""
        (self.shared / "finish").touch()

    def close(self) -> None:
        for agent in self._started:
            agent.kill()


CreateCluster = Callable[..., Cluster]


def outcomes(agents: list[Agent]) -> list[tuple[Reason, int | None, int | None]]:
    return [(outcome.reason, outcome.rank, outcome.node) for outcome in (agent.wait() for agent in agents)]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
