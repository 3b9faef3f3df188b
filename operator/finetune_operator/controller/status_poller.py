"""Polls the run status of every running job from the agent in its first pod, and asks pods on lost nodes for any answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator

import aiohttp
from pydantic import ValidationError

from finetune_operator import names
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.reconcile import Pod
from finetune_trainer.config import explain
from finetune_trainer.protocol.outcome import RunStatus

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 2.0  # seconds
MAX_RESPONSE_BYTES = 65536
MAX_CONCURRENT_REQUESTS = 32
SPREAD = 0.8  # share of the interval over which the requests are spread
MAX_REPORTED_PODS = 4096
NO_RESPONSE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError, OSError)


class InvalidAnswerError(Exception):
    """A pod answered something else than its run status."""


class StatusPoller:
    """Calls `on_status(job, pod UID, run status)` for every run status, and `on_contact` with whether a pod answered.

    `on_poll` is called with the result of every request: "ok", "unreachable" or "invalid". The image of a pod is the user's, so
    nothing in its answer is trusted: redirects are not followed, and an invalid answer is logged once per pod.
    """

    def __init__(
        self,
        cache: InformerCache,
        interval: float,
        on_status: Callable[[CachedJob, str, RunStatus], None],
        port: int = names.HTTP_PORT,
        on_poll: Callable[[str], None] = lambda _result: None,
        on_contact: Callable[[CachedJob, str, bool], None] = lambda _job, _pod_uid, _has_answered: None,
        may_be_lost: Callable[[Pod], bool] = lambda _pod: False,
    ) -> None:
        self._cache, self._interval, self._port = cache, interval, port
        self._on_status, self._on_poll, self._on_contact, self._may_be_lost = on_status, on_poll, on_contact, may_be_lost
        self._reported: OrderedDict[str, None] = OrderedDict()  # UIDs of pods whose invalid answer was logged
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

    async def run(self) -> None:
        """Poll every interval until cancelled. Requests are spread over the interval to avoid bursts with many jobs."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        # A proxy from the environment would receive requests for addresses that mean something else to it. Without
        # decompression, the limit of an answer's size holds for what is in memory too.
        async with aiohttp.ClientSession(
            timeout=timeout, trust_env=False, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                interval = asyncio.create_task(asyncio.sleep(self._interval))
                await asyncio.gather(*(self._poll(session, job, pod) for job, pod in self._targets()))
                await interval

    def _targets(self) -> Iterator[tuple[CachedJob, Pod]]:
        """The first pod of each active job, and the pods of lost nodes, if their trainer containers run."""
        for key, pod in list(self._cache.all_pods()):
            job = self._active_job(key, pod)
            if job is None or not pod.running or not pod.address:
                continue
            if (pod.index == 0 and not pod.is_being_deleted) or self._may_be_lost(pod):
                yield job, pod

    def _active_job(self, key: JobKey, pod: Pod) -> CachedJob | None:
        """The job that owns a pod; None if the job is finished or another job of this name owns the pod."""
        job = self._cache.jobs.get(key)
        if job is None or job.uid != pod.job_uid or not job.is_active:
            return None
        return job

    async def _poll(self, session: aiohttp.ClientSession, job: CachedJob, pod: Pod) -> None:
        await asyncio.sleep(random.uniform(0, SPREAD * self._interval))
        try:
            run = await self._fetch(session, pod)
        except NO_RESPONSE as error:
            # An agent that starts or terminates does not respond, or breaks off; a later poll or its termination message has
            # the status.
            self._on_poll("unreachable")
            logger.debug("%s: no progress from %s: %r", job.key, pod.name, error)
            # A pod that breaks off is alive all the same.
            self._on_contact(job, pod.uid, isinstance(error, aiohttp.ClientPayloadError))
            return
        except Exception as error:  # no answer may end the operator: aiohttp passes on errors of its parser
            self._on_poll("invalid")
            self._on_contact(job, pod.uid, True)
            self._report_once(job, pod, error)
            return
        self._on_poll("ok")
        self._on_contact(job, pod.uid, True)
        if pod.index == 0:
            self._on_status(job, pod.uid, run)

    def _report_once(self, job: CachedJob, pod: Pod, error: Exception) -> None:
        if pod.uid not in self._reported:
            logger.warning("%s: the answer of pod %s to GET /progress is ignored: %s", job.key, pod.name, error)
        self._reported[pod.uid] = None
        if len(self._reported) > MAX_REPORTED_PODS:
            self._reported.popitem(last=False)

    async def _fetch(self, session: aiohttp.ClientSession, pod: Pod) -> RunStatus:
        """The pod's run status. Raises InvalidAnswerError, or an error of aiohttp, for any other answer."""
        address = ipaddress.ip_address(pod.address)
        host = f"[{address}]" if address.version == 6 else str(address)
        url = f"http://{host}:{self._port}/progress"
        async with self._slots, session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise InvalidAnswerError(f"it has the status {response.status}")
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise InvalidAnswerError(f"it has more than {MAX_RESPONSE_BYTES} bytes")
        try:
            return RunStatus.model_validate_json(body, extra="ignore")
        except ValidationError as error:
            raise InvalidAnswerError("; ".join(explain(error))) from error
