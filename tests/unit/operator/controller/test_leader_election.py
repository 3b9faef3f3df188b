"""Leader election on a clock of the test: who holds the Lease, and when a leader has stopped."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from finetune_operator.client.errors import ApiError
from finetune_operator.controller import leader_election
from finetune_operator.controller.leader_election import ElectionTimings, LeaderElection

LEASE_DURATION = ElectionTimings().lease_duration
RENEW_DEADLINE = ElectionTimings().renew_deadline


class LeaseServer:
    """Stores one Lease with a resourceVersion, like the API server; `is_down` makes every request fail."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.lease: dict[str, Any] | None = None
        self.is_down = False
        self.loses_responses = False
        self._version = 0

    @property
    def holder(self) -> str:
        return "" if self.lease is None else str(self.lease["spec"]["holderIdentity"])

    async def get_lease(self, _namespace: str, _name: str) -> dict[str, Any] | None:
        self._receive()
        return copy.deepcopy(self.lease)

    async def create_lease(self, body: dict[str, Any]) -> dict[str, Any]:
        self._receive()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "exists")
        return self._store(body)

    async def replace_lease(self, body: dict[str, Any]) -> dict[str, Any]:
        self._receive()
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "changed")
        return self._store(body)

    def _receive(self) -> None:
        if self.is_down:
            raise aiohttp.ClientConnectionError("down")

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        if self.loses_responses:
            raise TimeoutError
        return copy.deepcopy(self.lease)


class VirtualClock:
    """A clock that `asyncio.sleep` of the module under test advances; `wake` runs at each sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.wake: Callable[[], None] = lambda: None
        self._yield_to_other_tasks = asyncio.sleep
        monkeypatch.setattr(leader_election.asyncio, "sleep", self._sleep)

    def __call__(self) -> float:
        return self.now

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.wake()
        await self._yield_to_other_tasks(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    return VirtualClock(monkeypatch)


@pytest.fixture
def server(clock: VirtualClock) -> LeaseServer:
    return LeaseServer(clock)


def candidate(server: LeaseServer, identity: str) -> LeaderElection:
    client: Any = server
    return LeaderElection(client, "finetune-system", "finetune-operator", identity, clock=server.clock)


async def test_first_candidate_creates_the_lease(server: LeaseServer) -> None:
    election = candidate(server, "a")
    assert not election.is_leader()
    await election.acquire()
    assert election.is_leader()
    assert server.lease is not None
    assert server.lease["spec"] | {"acquireTime": "", "renewTime": ""} == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 10,
        "leaseTransitions": 0,
        "acquireTime": "",
        "renewTime": "",
    }


async def test_dead_leader_is_replaced_after_the_lease_duration(server: LeaseServer, clock: VirtualClock) -> None:
    dead, standby = candidate(server, "a"), candidate(server, "b")
    await dead.acquire()
    died_at = clock.now
    await standby.acquire()
    assert server.holder == "b"
    assert LEASE_DURATION <= clock.now - died_at <= LEASE_DURATION + 0.1
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("skew", ["2001-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z", None])
async def test_clock_of_the_leader_does_not_matter(server: LeaseServer, clock: VirtualClock, skew: str | None) -> None:
    """A living leader keeps its Lease, whatever time it writes, because each renewal changes the resourceVersion."""
    leader, standby = candidate(server, "a"), candidate(server, "b")
    await leader.acquire()
    waited = 0.0

    def renew_with_skew() -> None:
        nonlocal waited
        waited += 2
        assert server.lease is not None
        if waited < 60:
            server.lease["spec"]["renewTime"] = skew
            server.lease["metadata"]["resourceVersion"] = f"renewal-{waited}"

    clock.wake = renew_with_skew
    await standby.acquire()
    assert waited >= 60 + LEASE_DURATION - 2, "the standby waited for as long as the Lease changed, and then for its duration"


async def test_leader_stops_before_the_standby_can_start(server: LeaseServer, clock: VirtualClock) -> None:
    leader, standby = candidate(server, "a"), candidate(server, "b")
    await leader.acquire()
    acquired_at = clock.now
    server.is_down = True
    await leader.renew()
    assert RENEW_DEADLINE <= clock.now - acquired_at < LEASE_DURATION
    assert not leader.is_leader()
    server.is_down = False
    await standby.acquire()
    assert server.holder == "b"


async def test_suspended_leader_stops_at_once_when_it_continues(server: LeaseServer, clock: VirtualClock) -> None:
    leader = candidate(server, "a")
    await leader.acquire()
    clock.now += LEASE_DURATION + 1  # SIGSTOP
    assert not leader.is_leader(), "no write may be sent, even before the renewal has noticed anything"
    await leader.renew()
    await candidate(server, "b").acquire()
    assert server.holder == "b"
    assert not leader.is_leader()


async def test_renewal_that_arrives_after_the_deadline_is_too_late(server: LeaseServer, clock: VirtualClock) -> None:
    leader = candidate(server, "a")
    await leader.acquire()

    def suspend() -> None:
        clock.now += RENEW_DEADLINE

    clock.wake = suspend
    await leader.renew()
    assert not leader.is_leader()


async def test_leader_that_finds_another_holder_stops_at_once(server: LeaseServer, clock: VirtualClock) -> None:
    leader = candidate(server, "a")
    await leader.acquire()
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = "b"
    server.lease["metadata"]["resourceVersion"] = "other"
    started = clock.now
    await leader.renew()
    assert clock.now - started < 3
    assert not leader.is_leader()


async def test_short_outage_and_edits_of_the_lease_do_not_matter(server: LeaseServer, clock: VirtualClock) -> None:
    leader = candidate(server, "a")
    await leader.acquire()
    rounds = 0

    def disturb() -> None:
        nonlocal rounds
        rounds += 1
        assert server.lease is not None
        assert leader.is_leader()
        server.is_down = rounds % 3 == 0  # one of three renewals fails
        server.loses_responses = rounds % 3 == 1  # one is stored, but its response is lost
        if rounds % 3 == 2:
            server.lease["metadata"] |= {"annotations": {"a": "b"}, "resourceVersion": f"annotated-{rounds}"}
        if rounds == 30:
            raise asyncio.CancelledError

    clock.wake = disturb
    with pytest.raises(asyncio.CancelledError):
        await leader.renew()
    assert leader.is_leader()
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 0
    assert server.lease["metadata"]["annotations"] == {"a": "b"}


async def test_released_lease_is_taken_over_at_the_next_attempt(server: LeaseServer, clock: VirtualClock) -> None:
    leader, standby = candidate(server, "a"), candidate(server, "b")
    await leader.acquire()
    waiting = asyncio.create_task(standby.acquire())
    for _ in range(10):
        await asyncio.sleep(0.5)
    released_at = clock.now
    await leader.release()
    await waiting
    assert not leader.is_leader()
    assert server.holder == "b"
    assert clock.now - released_at <= 3


async def test_standby_does_not_release_the_lease_of_the_leader(server: LeaseServer) -> None:
    leader, standby = candidate(server, "a"), candidate(server, "b")
    await leader.acquire()
    await standby.release()
    assert server.holder == "a"


async def test_two_candidates_for_one_expired_lease(server: LeaseServer, clock: VirtualClock) -> None:
    dead, first, second = (candidate(server, name) for name in "abc")
    await dead.acquire()
    tasks = [asyncio.create_task(election.acquire()) for election in (first, second)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert [election.is_leader() for election in (first, second)].count(True) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
