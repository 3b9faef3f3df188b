"""The ranks of one node, in one round."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.settings import Settings
from finetune_trainer.agent.worker_process import WorkerProcess
from finetune_trainer.protocol.outcome import Outcome, Reason


def severity(outcome: Outcome) -> int:
    """Which of several failures is told: the lowest. What cannot be mended first, then causes, then consequences."""
    exit_policy = outcome.exit_policy
    if exit_policy.disruption:
        return 4 if outcome.reason is Reason.PREEMPTED else 3
    if outcome.reason is Reason.RENDEZVOUS_FAILED:
        return 2
    return 1 if exit_policy.in_place else 0


class WorkerGroup:
    """Starts, watches and stops this node's ranks."""

    def __init__(self, settings: Settings, monitor: Monitor, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._monitor = monitor
        self._environment = environment
        self._children: list[WorkerProcess] = []
        self._lives = 0

    def start(self, number: int, master: str) -> None:
        """Start the ranks of round `number`, which meet at `master` (host:port)."""
        self._monitor.ranks_started(anew=self._lives > 0)
        self._lives += 1
        per_node = range(self._settings.processes_per_node)
        self._children = [self._child(local_rank, number, master) for local_rank in per_node]

    def _child(self, local_rank: int, number: int, master: str) -> WorkerProcess:
        settings = self._settings
        rank = settings.rank(local_rank)
        options = {
            "document": settings.document,
            "job": f"{settings.namespace}/{settings.job}",
            "rank": rank,
            "world-size": settings.world_size,
            "local-rank": local_rank,
            "processes-per-node": settings.processes_per_node,
            "master": master,
            "attempt": number,
            "work-dir": settings.work_dir,
            "cache-dir": settings.cache_dir,
            **({"credentials-dir": settings.credentials_dir} if settings.credentials_dir else {}),
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return WorkerProcess(rank, settings.node_rank, settings.rank_module, arguments, self._environment, self._monitor)

    @property
    def running(self) -> bool:
        """Whether any rank's process is there."""
        return any(child.running for child in self._children)

    def outcomes(self) -> list[Outcome]:
        """How those ranks ended that did, the first rank's first."""
        return [outcome for child in self._children if (outcome := child.outcome(self._settings.limits)) is not None]

    def failure(self) -> Outcome | None:
        """The first cause among the ranks that failed or fell silent; None while all is well."""
        limits = self._settings.limits
        failed = [outcome for outcome in self.outcomes() if outcome.reason is not Reason.COMPLETE]
        longest_silent_first = sorted(self._children, key=lambda child: child.last_sign)
        failed += [hang for child in longest_silent_first if (hang := child.silence(limits)) is not None]
        return min(failed, key=severity, default=None)

    def complete(self) -> Outcome | None:
        """The first rank's last word once all ranks of the node completed and exited."""
        outcomes = self.outcomes()
        if self.running or len(outcomes) < len(self._children):
            return None
        return outcomes[0] if all(outcome.reason is Reason.COMPLETE for outcome in outcomes) else None

    def ask_to_stop(self) -> None:
        """Tell every rank to store a checkpoint and stop."""
        for child in self._children:
            child.ask_to_stop()

    def kill(self) -> None:
        """Force all ranks, and what they started, to stop."""
        for child in self._children:
            child.kill()

    def end(self) -> None:
        """Stop all ranks and what they started, whose last words count no more: asked first, then forced."""
        self._monitor.ranks_stopped()
        for child in self._children:
            child.abandon()
        if self.running:
            self.ask_to_stop()
            deadline = time.monotonic() + self._settings.limits.kill_grace
            while self.running and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill()
        while self.running:
            time.sleep(0.01)
        self._children = []

    def reap(self) -> None:
        """Collect orphans: as process 1 of a container the agent inherits every one of them."""
        own = {child.pid for child in self._children if child.running}
        while sys.platform == "linux":
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in own:  # a rank's exit status belongs to its Child
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
