"""Leader election with a Lease: of several replicas of the operator only one reconciles jobs.

The clocks of the replicas are never compared. A candidate measures with its own clock how long a Lease has not changed, and
takes it over after the lease duration. The leader stops when it has not renewed the Lease for the shorter renew deadline, so
it has stopped before another replica can start, even if it was suspended in between (SIGSTOP, a paused machine).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp

from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient

logger = logging.getLogger(__name__)

Body = dict[str, Any]
NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class ElectionTimings:
    """Times of the election, in seconds.

    A replica takes over at most `lease_duration` and about one `retry_period` after the last renewal of a leader that died.
    """

    lease_duration: float = 10.0
    renew_deadline: float = 7.0
    retry_period: float = 2.0
    request_timeout: float = 3.0
    jitter: float = 0.2  # share of retry_period, so that replicas do not send their requests at the same moment


def clock() -> float:
    """Seconds since the machine started, including the time for which it was suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class LeaderElection:
    """One candidate for a Lease. `acquire` and `renew` are called in turn; `is_leader` may be called at any time."""

    def __init__(
        self,
        client: KubernetesClient,
        namespace: str,
        name: str,
        identity: str,
        timings: ElectionTimings | None = None,
        clock: Callable[[], float] = clock,
    ) -> None:
        self._client, self._namespace, self._name, self._identity = client, namespace, name, identity
        self._timings, self._clock = timings or ElectionTimings(), clock
        self._lease: Body | None = None  # as last read or written
        self._unchanged_since = 0.0  # when this process first saw that version of the Lease
        self._renewed = NEVER  # when the last successful renewal was sent

    def is_leader(self) -> bool:
        """Whether this process may write. False from the renew deadline on, whether or not `renew` has noticed it."""
        return self._clock() < self._renewed + self._timings.renew_deadline

    async def acquire(self) -> None:
        """Wait until this process is the leader."""
        while True:
            if await self._attempt(self._try_acquire):
                break
            await asyncio.sleep(self._until_next_attempt())
        logger.info("%s is the leader", self._identity)

    async def renew(self) -> None:
        """Renew the Lease until it is lost. When this returns, the process must not write any more."""
        while self.is_leader():
            await asyncio.sleep(self._retry_period())
            if self.is_leader():
                await self._attempt(self._try_renew)
        logger.error("%s lost the Lease %s/%s", self._identity, self._namespace, self._name)

    async def release(self) -> None:
        """Give up the Lease, so that another replica takes over at its next attempt. Writes must have stopped before."""
        if not self.is_leader():
            return
        self._renewed = NEVER
        spec = {**self._spec(), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _timestamp()}
        await self._attempt(lambda: self._replace(spec))

    async def _attempt(self, request: Callable[[], Any]) -> bool:
        """Whether an attempt succeeded; one that takes too long has failed."""
        try:
            async with asyncio.timeout(self._timings.request_timeout):
                return bool(await request())
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("the Lease %s/%s could not be read or written: %r", self._namespace, self._name, error)
            return False

    async def _try_acquire(self) -> bool:
        await self._read()
        sent = self._clock()
        if self._lease is None:
            spec = self._new_spec(transitions=0)
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": spec,
            }
            self._observe(await self._client.create_lease(body))
            self._renewed = sent
            return True
        if self._expires_in() > 0 and not self._is_holder():
            return False
        transitions = self._spec().get("leaseTransitions", 0) + 1
        if not await self._replace(self._new_spec(transitions)):
            return False
        self._renewed = sent
        return True

    async def _try_renew(self) -> bool:
        sent = self._clock()
        renewed = await self._replace(self._spec() | {"renewTime": _timestamp()})
        if not renewed:
            # The Lease has another version: after a renewal whose response was lost, or because another client changed it.
            await self._read()
            if not self._is_holder():
                self._renewed = NEVER
                return False
            renewed = await self._replace(self._spec() | {"renewTime": _timestamp()})
        if renewed:
            self._renewed = sent if self.is_leader() else NEVER  # a renewal after the deadline is too late
        return renewed

    async def _read(self) -> None:
        lease = await self._client.get_lease(self._namespace, self._name)
        # Every renewal changes the resourceVersion, whatever the clock of the leader writes to renewTime.
        if lease is None or self._lease is None or _version(lease) != _version(self._lease):
            self._observe(lease)

    async def _replace(self, spec: Body) -> bool:
        """Write the Lease, unless another client has changed it since it was last read. Whether it was written."""
        assert self._lease is not None
        try:
            self._observe(await self._client.replace_lease({**self._lease, "spec": spec}))
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _observe(self, lease: Body | None) -> None:
        self._lease, self._unchanged_since = lease, self._clock()

    def _expires_in(self) -> float:
        """Seconds until the Lease may be taken over; not positive if it may be now."""
        spec = self._spec()
        if not spec.get("holderIdentity"):
            return 0.0
        duration = max(float(spec.get("leaseDurationSeconds") or 0), self._timings.lease_duration)
        return self._unchanged_since + duration - self._clock()

    def _until_next_attempt(self) -> float:
        if self._lease is None:
            return self._retry_period()
        remaining = self._expires_in()
        return min(self._retry_period(), remaining) if remaining > 0 else self._retry_period()

    def _is_holder(self) -> bool:
        return bool(self._spec().get("holderIdentity") == self._identity)

    def _retry_period(self) -> float:
        jitter = self._timings.jitter
        return self._timings.retry_period * random.uniform(1 - jitter, 1 + jitter)

    def _spec(self) -> Body:
        return dict((self._lease or {}).get("spec") or {})

    def _new_spec(self, transitions: int) -> Body:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._timings.lease_duration),
            "acquireTime": _timestamp(),
            "renewTime": _timestamp(),
            "leaseTransitions": transitions,
        }


def _version(lease: Body) -> str:
    return str(lease["metadata"]["resourceVersion"])


def _timestamp() -> str:
    """The current time in the format of a Lease; only people read it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
