"""The nodes of a local run: one agent process per node, with the arguments that a pod would get."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from pydantic import ValidationError

from finetune_operator.api import FineTuneJob
from finetune_operator.local.job_directory import JobDirectory
from finetune_trainer.agent import guard
from finetune_trainer.agent.ports import free_ports
from finetune_trainer.protocol.outcome import Outcome, Reason, RunStatus

STATUS_TIMEOUT_SECONDS = 2


class NodeProcess:
    """A running agent."""

    def __init__(self, index: int, directory: JobDirectory, process: subprocess.Popen[bytes], http_port: int) -> None:
        self.index = index
        self._directory = directory
        self._process = process
        self._http_port = http_port
        self._stop_requested = False

    @property
    def is_running(self) -> bool:
        """Whether the agent has not exited yet."""
        return self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the agent to stop, if it is running."""
        self._stop_requested = self._stop_requested or self.is_running
        self._process.send_signal(number)

    def status(self) -> RunStatus | None:
        """Fetch the status of the run; None while the agent does not respond."""
        url = f"http://127.0.0.1:{self._http_port}/progress"
        try:
            with urllib.request.urlopen(url, timeout=STATUS_TIMEOUT_SECONDS) as response:
                return RunStatus.model_validate_json(response.read())
        except (OSError, HTTPException, ValidationError):
            return None  # the next poll tries again

    def outcome(self) -> Outcome:
        """Read the termination message of an agent that has exited; derive one from the exit code if it left none."""
        try:
            return Outcome.model_validate_json(self._directory.outcome_file(self.index).read_bytes())
        except (OSError, ValidationError):
            return self._outcome_from_exit_code()

    def _outcome_from_exit_code(self) -> Outcome:
        code = self._process.wait()
        was_killed = code < 0
        end = f"was killed by signal {-code}" if was_killed else f"exited with code {code}"
        reason = Reason.PREEMPTED_UNSAVED if was_killed and self._stop_requested else Reason.CRASHED
        return Outcome(reason=reason, message=f"the agent of node {self.index} {end}; see its log", node=self.index)


def start_nodes(
    job: FineTuneJob, directory: JobDirectory, environments: list[dict[str, str]], lock: int, rank_module: str | None = None
) -> list[NodeProcess]:
    """Start one agent per node; `environments` has one entry per node, `lock` is the descriptor of the locked file."""
    rendezvous_port, *http_ports = free_ports(job.spec.workers.nodes + 1)
    nodes = []
    for index, (http_port, environment) in enumerate(zip(http_ports, environments, strict=True)):
        options = _agent_options(job, directory, index, rendezvous_port)
        options["http-port"] = http_port
        if rank_module is not None:
            options["rank-module"] = rank_module
        directory.outcome_file(index).unlink(missing_ok=True)
        process = _start_agent(options, directory.log_file(index), environment, lock)
        nodes.append(NodeProcess(index, directory, process, http_port))
    return nodes


def _agent_options(job: FineTuneJob, directory: JobDirectory, index: int, rendezvous_port: int) -> dict[str, object]:
    options: dict[str, object] = {
        "document": directory.document,
        "job": f"{job.metadata.namespace}/{job.metadata.name}",
        "run-id": directory.run_id(),
        "node-rank": index,
        "nodes": job.spec.workers.nodes,
        "processes-per-node": job.spec.workers.processes_per_node,
        "rendezvous": f"localhost:{rendezvous_port}",
        "work-dir": directory.work_directory(index),
        "cache-dir": directory.cache,
        "termination-log": directory.outcome_file(index),
        "hang-limits": job.spec.run_policy.hang.model_dump_json(by_alias=True),
    }
    if job.spec.run_policy.preflight is not None:
        options["preflight"] = job.spec.run_policy.preflight.model_dump_json(by_alias=True, exclude_none=True)
    return options


def _start_agent(
    options: Mapping[str, object], log_file: Path, environment: Mapping[str, str], lock: int
) -> subprocess.Popen[bytes]:
    # The guard sends SIGTERM to the agent when this process dies, so that it stores a checkpoint and exits.
    command = guard.command(signal.SIGTERM, "finetune_trainer.agent")
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            # Ctrl-C in the terminal must reach this process only, which forwards it as SIGTERM.
            start_new_session=True,
            # The agents inherit the lock, which is therefore held until the last of them exits.
            pass_fds=(lock,),
        )
