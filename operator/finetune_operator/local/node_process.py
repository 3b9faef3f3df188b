"""The nodes of a local run: one agent each, started as the operator's pods start it."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_operator.api import FineTuneJob
from finetune_trainer.agent import guard
from finetune_trainer.agent.ports import free_ports
from finetune_trainer.protocol.outcome import Outcome, Reason, RunStatus


@dataclass(frozen=True)
class Folder:
    """Where a job's local state lies: `.finetune/NAME/`."""

    path: Path

    @property
    def document(self) -> Path:
        """What the operator would put in the ConfigMap."""
        return self.path / "train.json"

    @property
    def cache(self) -> Path:
        """Prepared data, shared by all jobs below the same folder."""
        return self.path.parent / "cache"

    @property
    def lock(self) -> Path:
        """Held by the run and all its agents."""
        return self.path / "lock"

    def log(self, node: int) -> Path:
        """What the agent and ranks of a node print."""
        return self.path / f"node-{node}.log"

    def outcome(self, node: int) -> Path:
        """A node's last word."""
        return self.path / f"node-{node}.outcome.json"

    def work(self, node: int) -> Path:
        """A node's scratch space."""
        return self.path / f"node-{node}"


class Node:
    """A running agent."""

    def __init__(
        self, index: int, folder: Folder, command: list[str], http_port: int, environment: Mapping[str, str], lock: int
    ):
        self.index = index
        self._folder = folder
        self._http_port = http_port
        self._told = False
        folder.outcome(index).unlink(missing_ok=True)
        with folder.log(index).open("ab") as log:
            # A session of its own, for Ctrl-C in the terminal must reach this program alone: it passes it on as SIGTERM.
            # The inherited lock is held until the last agent is gone, whatever becomes of this program.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment), start_new_session=True,
                pass_fds=(lock,),
            )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether the agent is there."""
        return self._process.poll() is None

    def stop(self, number: signal.Signals) -> None:
        """Tell the agent to stop, if it is there."""
        self._told = self._told or self.running
        self._process.send_signal(number)

    def status(self) -> RunStatus | None:
        """What the agent says of the run; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}/progress", timeout=2) as answer:
                return RunStatus.model_validate_json(answer.read())
        except (OSError, ValidationError):
            return None

    def outcome(self) -> Outcome:
        """The last word of an agent that ended."""
        try:
            return Outcome.model_validate_json(self._folder.outcome(self.index).read_bytes())
        except (OSError, ValidationError):
            code = self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            reason = Reason.PREEMPTED_UNSAVED if self._told and code < 0 else Reason.CRASHED
            return Outcome(reason=reason, message=f"the agent of node {self.index} {how}; see its log", node=self.index)


def start(
    job: FineTuneJob, folder: Folder, environments: list[dict[str, str]], lock: int, rank_module: str | None = None
) -> list[Node]:
    """Start the agents of all nodes; `lock` is the open lock file."""
    workers = job.spec.workers
    store, *http = free_ports(workers.nodes + 1)
    nodes = []
    for index, (port, environment) in enumerate(zip(http, environments, strict=True)):
        options = {
            "document": folder.document,
            "job": f"{job.metadata.namespace}/{job.metadata.name}",
            "node-rank": index,
            "nodes": workers.nodes,
            "processes-per-node": workers.processes_per_node,
            "rendezvous": f"localhost:{store}",
            "work-dir": folder.work(index),
            "cache-dir": folder.cache,
            "http-port": port,
            "termination-log": folder.outcome(index),
            **({"rank-module": rank_module} if rank_module else {}),
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        # Should this program be killed, its agents store a checkpoint and end.
        command = [*guard.command(signal.SIGTERM, "finetune_trainer.agent"), *arguments]
        nodes.append(Node(index, folder, command, port, environment, lock))
    return nodes
