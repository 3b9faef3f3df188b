"""A run of several nodes in simulated time: what its ranks do, and what its agents know of their signs of life.

Ranks are generators: they yield the seconds until their next sign of life, the event that they send, or `BARRIER`, where they
wait silently for all ranks that have not ended.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from finetune_trainer.agent.liveness import Liveness
from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.protocol.events import Activity, Alive, Beat, Event, StepTime

BARRIER = "barrier"
SHARE_SECONDS = 1.2  # until another node's agent knows of a sign of life
Script = Iterator[float | Event | str]


@dataclass(frozen=True)
class Found:
    """A rank that an agent took for hanging: when, and after which silence of all ranks."""

    rank: int
    at: float
    limit: float
    last_beat: float


@dataclass
class SimulatedRun:
    """`frozen_rank` stops for good at `frozen_at`."""

    scripts: list[Script]
    per_node: int
    limits: HangLimits
    frozen_rank: int | None = None
    frozen_at: float = math.inf
    now: float = 0.0
    _queue: list[tuple[float, int, int]] = field(default_factory=list)
    _number: Iterator[int] = field(default_factory=itertools.count)
    _waiting: set[int] = field(default_factory=set)
    _running: set[int] = field(default_factory=set)

    def run(self) -> Found | None:
        """Simulate until the end of the run, or until an agent finds a hang."""
        ranks = range(len(self.scripts))
        self._lives = [Liveness(self.limits, 0.0) for _ in ranks]
        self._beats: list[list[float]] = [[0.0] for _ in range(0, len(ranks), self.per_node)]
        self._running = set(ranks)
        for rank in ranks:
            self._advance(rank)
        while self._queue:
            time, _, rank = heapq.heappop(self._queue)
            if found := self._find_hang(time):  # a silence is longest immediately before the next event
                return found
            self.now = time
            if self._is_frozen(rank):
                continue
            self._observe(rank, Beat())
            self._advance(rank)
        return self._find_hang(self.now + 1e7) if self._running else None

    def _is_frozen(self, rank: int) -> bool:
        return rank == self.frozen_rank and self.now >= self.frozen_at

    def _observe(self, rank: int, event: Event) -> None:
        self._lives[rank].observe(event, self.now)
        self._beats[rank // self.per_node].append(self.now)

    def _advance(self, rank: int) -> None:
        """Run the script of a rank up to its next wait."""
        for item in self.scripts[rank]:
            if isinstance(item, float):
                heapq.heappush(self._queue, (self.now + item, next(self._number), rank))
                return
            if item == BARRIER:
                self._waiting.add(rank)
                self._open_barrier()
                return
            assert not isinstance(item, str)
            self._observe(rank, item)
        self._running.remove(rank)
        self._open_barrier()

    def _open_barrier(self) -> None:
        if self._waiting and self._waiting == self._running:
            waiting, self._waiting = self._waiting, set()
            for rank in sorted(waiting):
                heapq.heappush(self._queue, (self.now + 0.01, next(self._number), rank))

    def _find_hang(self, now: float) -> Found | None:
        earliest: Found | None = None
        for rank in self._running:
            life = self._lives[rank]
            if now - life.last_heartbeat < life.limit:
                continue
            alive_at = self._known_beat(rank // self.per_node, now)
            if life.hangs(now, alive_at):
                at = now - life.silence(now, alive_at) + life.limit
                if earliest is None or at < earliest.at:
                    earliest = Found(rank, at, life.limit, max(beats[-1] for beats in self._beats))
        return earliest

    def _known_beat(self, node: int, now: float) -> float:
        """The last sign of life that the agent of a node knows of."""
        known = [self._beats[node][-1]]
        for other, beats in enumerate(self._beats):
            if other != node:
                known.append(beats[max(0, bisect.bisect_right(beats, now - SHARE_SECONDS) - 1)])
        return max(known)


def rank_script(rank: int, seed: int, slowness: float, steps: int = 40) -> Script:
    """A run of hours: slow preparation, jittering steps, long evaluations, and a slow upload at the end.

    `slowness` stretches everything that this rank's node does.
    """
    own, shared = random.Random(f"{seed}-{rank}"), random.Random(seed)

    def work(parts: int, typical: float, longest: float, jitter: float = 1.0) -> Iterator[float]:
        for _ in range(parts):
            yield min(longest, slowness * own.lognormvariate(math.log(typical), jitter))

    yield Alive(activity="Preparing")
    yield from work(own.randrange(20, 400), typical=20.0, longest=1200.0)
    yield Alive(activity="Loading")
    yield BARRIER
    yield from work(10, typical=60.0, longest=1200.0)
    yield BARRIER
    yield Alive(activity="Training")
    for step in range(steps):
        yield from work(shared.choice([1, 4, 32]), typical=5.0, longest=300.0)
        yield BARRIER
        yield StepTime(seconds=1.0, data_wait_seconds=0.0)
        if step % 20 == 19:
            yield from _phase("Evaluating", work(40, typical=60.0, longest=1500.0))
            yield BARRIER
            yield Alive(activity="Training")
    yield from _phase("Saving", work(own.randrange(5, 60), typical=200.0, longest=1500.0))
    yield BARRIER
    if rank == 0:
        yield from _phase("Exporting", work(40, typical=200.0, longest=1500.0))


def _phase(activity: Activity, work: Iterator[float]) -> Script:
    yield Alive(activity=activity)
    yield from work


def simulate(
    seed: int, nodes: int = 4, per_node: int = 2, freeze: Callable[[random.Random], tuple[int, float]] | None = None
) -> tuple[SimulatedRun, Found | None]:
    """One run; `freeze` chooses a rank that stops for good, and when."""
    chance = random.Random(-seed)
    slowness = [chance.choice([1.0, 1.0, 1.5, 3.0]) for _ in range(nodes)]
    scripts = [rank_script(rank, seed, slowness[rank // per_node]) for rank in range(nodes * per_node)]
    run = SimulatedRun(scripts, per_node, HangLimits())
    if freeze is not None:
        run.frozen_rank, run.frozen_at = freeze(chance)
    return run, run.run()
