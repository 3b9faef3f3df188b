"""Breaks a run again and again while it trains, with faults chosen at random, and reports what that cost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from signal import SIGKILL, SIGSTOP
from statistics import median

from tests.support.cluster_run import ClusterRun
from tests.support.devcluster import faults
from tests.support.faulty_proxy import FaultyProxy
from tests.support.operator_faults import kill_operator, without_operator
from tests.support.training_log import Entry, Recovery, lost_steps, useful_seconds

OUTAGE_SECONDS = 60
SHORT_SECONDS = 20  # shorter than the 40 to 50 s after which Kubernetes gives up on a node


@dataclass(frozen=True)
class Target:
    """What a fault can hit."""

    run: ClusterRun
    storage: FaultyProxy
    chance: random.Random

    @property
    def index(self) -> int:
        """The index of a pod."""
        return self.chance.randrange(2)

    @property
    def node(self) -> str:
        """The node of a pod."""
        return self.run.node(self.index)


@dataclass(frozen=True)
class SoakFault:
    """A fault that `inject` causes and removes again, and how often it makes all ranks start again: at least and at most."""

    name: str
    inject: Callable[[Target], None]
    restarts: tuple[int, int]


def _break_storage(target: Target) -> None:
    with target.storage.broken(target.chance.choice(["silent", "unavailable", "closing", "expired"])):
        time.sleep(OUTAGE_SECONDS)


def _stop_kubelet(target: Target) -> None:
    with faults.component_stopped(target.node):
        time.sleep(SHORT_SECONDS)


def _cut_network(target: Target) -> None:
    with faults.network_down(target.node):
        time.sleep(SHORT_SECONDS)


def _remove_operator(target: Target) -> None:
    with without_operator(target.run.jobs.cluster):
        time.sleep(SHORT_SECONDS)


FAULTS = (
    SoakFault("SIGKILL of a rank", lambda target: target.run.signal_rank(target.index, SIGKILL), (1, 1)),
    SoakFault("SIGSTOP of a rank", lambda target: target.run.signal_rank(target.index, SIGSTOP), (1, 1)),
    SoakFault("SIGKILL of a container", lambda target: target.run.kill_container(target.index), (1, 1)),
    SoakFault("a pod is deleted", lambda target: _delete_pod(target), (1, 1)),
    SoakFault("a pod is deleted by force", lambda target: _delete_pod(target, "--grace-period=0", "--force"), (1, 1)),
    SoakFault(f"the storage is down for {OUTAGE_SECONDS} s", _break_storage, (0, 0)),
    SoakFault(f"a kubelet is stopped for {SHORT_SECONDS} s", _stop_kubelet, (0, 0)),
    # Whether connections survive depends on what is sent meanwhile.
    SoakFault(f"a node has no network for {SHORT_SECONDS} s", _cut_network, (0, 1)),
    SoakFault("the operator is killed", lambda target: kill_operator(target.run.jobs.cluster), (0, 0)),
    SoakFault(f"no operator runs for {SHORT_SECONDS} s", _remove_operator, (0, 0)),
)


def _delete_pod(target: Target, *options: str) -> None:
    target.run.delete_pod(target.index, *options)


@dataclass
class Report:
    """What the faults of a run cost; `recoveries` are in the order of the faults."""

    seed: int
    recoveries: list[tuple[SoakFault, Recovery]] = field(default_factory=list)
    entries: Sequence[Entry] = ()

    @property
    def false_kills(self) -> int:
        """Restarts that no fault explains."""
        return sum(max(0, recovery.restarts - fault.restarts[1]) for fault, recovery in self.recoveries)

    @property
    def goodput(self) -> float:
        """The share of the time between the first and the last step in which steps were computed that were kept."""
        seconds = self.entries[-1].time - self.entries[0].time
        return useful_seconds(self.entries) / seconds

    def text(self) -> str:
        """The report for people."""
        seconds = [recovery.seconds for _, recovery in self.recoveries if recovery.restarts]
        lines = [f"{'fault':40} {'restarts':>8} {'seconds':>8} {'steps lost':>10}"]
        for fault, recovery in self.recoveries:
            lines.append(f"{fault.name:40} {recovery.restarts:8} {recovery.seconds:8.1f} {recovery.steps_lost:10}")
        steps = max((entry.step for entry in self.entries), default=0)
        lines += [
            f"seed         {self.seed}",
            f"goodput      {100 * self.goodput:.1f} % of {(self.entries[-1].time - self.entries[0].time) / 60:.1f} minutes",
            f"lost work    {lost_steps(self.entries)} of {steps} steps were computed again",
            f"false kills  {self.false_kills}",
        ]
        if seconds:
            lines.append(f"recovery     {median(seconds):.1f} s median, {max(seconds):.1f} s longest, after a restart")
        return "\n".join(lines)


def soak(target: Target, report: Report, *, interval: float, last_step: int) -> None:
    """Inject a fault every `interval` seconds, as long as `last_step` is not reached. Prints each before it is injected.

    Raises AssertionError if the run does not recover.
    """
    run = target.run
    while run.log.update().highest_step < last_step:
        next_fault = time.monotonic() + interval
        fault = target.chance.choice(FAULTS)
        print(f"step {run.log.highest_step}: {fault.name}", flush=True)
        started = time.time()
        fault.inject(target)
        run.wait_for_recovery(started, fault.restarts[0], seconds=300)
        run.wait_until_ready()
        while time.monotonic() < next_fault and run.log.update().highest_step < last_step:
            time.sleep(0.5)
        recovery = run.wait_for_recovery(started, fault.restarts[0], seconds=1)
        report.recoveries.append((fault, recovery))
        report.entries = run.log.entries
        run.check_curve()
