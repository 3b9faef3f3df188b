"""The ranks of one node, in one round."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from finetune_trainer.agent.launcher import Launcher
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.settings import Settings
from finetune_trainer.agent.stacks import Stack
from finetune_trainer.agent.worker_process import WorkerProcess
from finetune_trainer.protocol.outcome import Outcome, Reason


def cause_priority(outcome: Outcome) -> int:
    """Which of several failures is reported: the one with the lowest number.

    Failures that a restart cannot fix come first, then other causes, then consequences of another rank's failure.
    """
    exit_policy = outcome.exit_policy
    if outcome.reason is Reason.PREEMPTED:
        return 4
    if exit_policy.disruption:
        return 3
    if outcome.reason is Reason.RENDEZVOUS_FAILED:
        return 2
    if exit_policy.in_place:
        return 1
    return 0


class _Hang(NamedTuple):
    """A rank that hangs, whether it waits for another one, and when that was found."""

    outcome: Outcome
    is_waiting: bool
    found_at: float


class WorkerGroup:
    """Starts, monitors and stops this node's ranks."""

    def __init__(self, settings: Settings, monitor: Monitor, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._monitor = monitor
        self._launcher = Launcher(settings, environment)
        self._workers: list[WorkerProcess] = []
        self._was_started = False
        self._hang: _Hang | None = None
        self._checked_at = time.monotonic()
        self._has_logged_stacks = False
        self.peers_alive_at = -math.inf
        """When a rank of another node gave its last known sign of life, by this process's monotonic clock."""

    def start(self, round_number: int, master: str, nodes: int) -> None:
        """Start the ranks of a round on this many nodes, which meet at `master` (HOST:PORT)."""
        self._monitor.ranks_started(is_restart=self._was_started)
        self._was_started = True
        self._workers = []
        self._hang, self._has_logged_stacks = None, False
        self._checked_at = time.monotonic()
        for local_rank in range(self._settings.processes_per_node):
            self._workers.append(self._start_worker(local_rank, round_number, master, nodes))

    def _start_worker(self, local_rank: int, round_number: int, master: str, nodes: int) -> WorkerProcess:
        settings = self._settings
        rank = settings.rank(local_rank)
        options = {
            "document": settings.document,
            "job": f"{settings.namespace}/{settings.job}",
            "rank": rank,
            "world-size": nodes * settings.processes_per_node,
            "local-rank": local_rank,
            "processes-per-node": settings.processes_per_node,
            "master": master,
            "attempt": round_number,
            "work-dir": settings.work_dir,
            "cache-dir": settings.cache_dir,
        }
        if settings.run_id is not None:
            options["run-id"] = settings.run_id
        if settings.credentials_dir is not None:
            options["credentials-dir"] = settings.credentials_dir
        arguments = []
        for name, value in options.items():
            arguments += [f"--{name}", str(value)]
        return WorkerProcess(rank, settings, arguments, self._launcher, self._monitor)

    def prepare_restart(self) -> None:
        """Prepare what makes a restart of the ranks fast, when it is due; call this regularly while ranks run."""
        self._launcher.spare.prepare()

    def close(self) -> None:
        """Stop all ranks and everything that was prepared for a restart."""
        self.shut_down()
        self._launcher.spare.close()

    @property
    def is_running(self) -> bool:
        """Whether the process of any rank runs."""
        return any(worker.is_running for worker in self._workers)

    def outcomes(self) -> list[Outcome]:
        """The outcomes of the ranks that have ended, in rank order."""
        outcomes = [worker.outcome(self._settings.limits) for worker in self._workers]
        return [outcome for outcome in outcomes if outcome is not None]

    def first_failure(self) -> Outcome | None:
        """The failure to report among the ranks that failed or hang; None if there is none."""
        failures = [outcome for outcome in self.outcomes() if outcome.reason is not Reason.COMPLETE]
        hang = self._hang_outcome()
        if hang is not None:
            failures.append(hang)
        return min(failures, key=cause_priority, default=None)

    @property
    def last_heartbeat(self) -> float:
        """When a rank of this node gave its last sign of life; minus infinity without ranks."""
        return max((worker.liveness.last_heartbeat for worker in self._workers), default=-math.inf)

    @property
    def has_trained(self) -> bool:
        """Whether a rank has begun to train in this round."""
        return any(worker.liveness.has_trained for worker in self._workers)

    def log_stacks(self) -> list[Stack]:
        """Log the stacks of every rank, and return them."""
        self._has_logged_stacks = True
        return [worker.dump_stack() for worker in self._workers]

    def log_stacks_once(self) -> None:
        """Log the stacks of every rank, unless that was done since they started."""
        if not self._has_logged_stacks:
            self.log_stacks()

    def _hang_outcome(self) -> Outcome | None:
        """The outcome of the rank that hangs, if any.

        Of several silent ranks it is one that does not wait for another rank. If all of them wait, the cause is more likely on
        another node, whose agent gets `cause_delay` to report it.
        """
        hanging = self._hanging_workers()
        if not hanging:
            self._hang = None
            return None
        if self._hang is None:
            self._hang = self._describe_hang(hanging)
            self._checked_at = time.monotonic()
        hang = self._hang
        if hang.is_waiting and time.monotonic() - hang.found_at < self._settings.limits.cause_delay:
            return None
        return hang.outcome

    def _hanging_workers(self) -> list[WorkerProcess]:
        now = time.monotonic()
        since_last_check, self._checked_at = now - self._checked_at, now
        if since_last_check > self._settings.limits.pause:
            # The container or the machine was paused, and the ranks with it; their events may still be in the pipes.
            for worker in self._workers:
                worker.liveness.discount(since_last_check)
        alive_at = self._alive_at
        return [worker for worker in self._workers if worker.hangs(now, alive_at)]

    @property
    def _alive_at(self) -> float:
        return max(self.last_heartbeat, self.peers_alive_at)

    def _describe_hang(self, hanging: list[WorkerProcess]) -> _Hang:
        stacks = dict(zip((worker.rank for worker in self._workers), self.log_stacks(), strict=True))

        def suspicion(worker: WorkerProcess) -> tuple[bool, float]:
            return stacks[worker.rank].is_waiting, worker.liveness.last_heartbeat

        worker = min(hanging, key=suspicion)
        stack, now = stacks[worker.rank], time.monotonic()
        return _Hang(worker.hang_outcome(now, self._alive_at, stack), stack.is_waiting, now)

    def completion(self) -> Outcome | None:
        """The outcome of the first rank once all ranks of the node have completed and exited; None before."""
        outcomes = self.outcomes()
        if self.is_running or len(outcomes) < len(self._workers):
            return None
        if any(outcome.reason is not Reason.COMPLETE for outcome in outcomes):
            return None
        return outcomes[0]

    def terminate(self) -> None:
        """Send SIGTERM to every rank: it stores a checkpoint and exits."""
        for worker in self._workers:
            worker.terminate()

    def kill(self) -> None:
        """Send SIGKILL to all ranks and their child processes."""
        for worker in self._workers:
            worker.kill()

    def shut_down(self) -> None:
        """Stop all ranks and their child processes, by SIGTERM and then SIGKILL; ignores their further events."""
        self._monitor.ranks_stopped()
        for worker in self._workers:
            worker.ignore_events()
        if self.is_running:
            self.terminate()
            deadline = time.monotonic() + self._settings.limits.kill_grace
            while self.is_running and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill()
        while self.is_running:
            time.sleep(0.01)
        self._workers = []

    def reap_orphans(self) -> None:
        """Reap orphaned processes: as process 1 of a container the agent inherits every orphan."""
        owned = {worker.pid for worker in self._workers if worker.is_running} | {self._launcher.spare.pid}
        while sys.platform == "linux":
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in owned:  # its exit status belongs to another object
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
