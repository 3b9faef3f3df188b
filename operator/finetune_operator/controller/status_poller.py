"""Polls the run status of every running job from the agent in its first pod, and asks pods on lost nodes for any answer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator

import aiohttp

from finetune_operator import names
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.reconcile import Pod
from finetune_trainer.protocol.outcome import RunStatus

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 2.0  # seconds
MAX_RESPONSE_BYTES = 65536
MAX_CONCURRENT_REQUESTS = 32
SPREAD = 0.8  # share of the interval over which the requests are spread


class StatusPoller:
    """Calls `on_status(job, pod UID, run status)` for every run status, and `on_contact` with whether a pod answered."""

    def __init__(
        self,
        cache: InformerCache,
        interval: float,
        on_status: Callable[[CachedJob, str, RunStatus], None],
        port: int = names.HTTP_PORT,
        on_contact: Callable[[CachedJob, str, bool], None] = lambda _job, _pod_uid, _has_answered: None,
        may_be_lost: Callable[[Pod], bool] = lambda _pod: False,
    ) -> None:
        self._cache, self._interval, self._on_status, self._port = cache, interval, on_status, port
        self._on_contact, self._may_be_lost = on_contact, may_be_lost
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

    async def run(self) -> None:
        """Poll every interval until cancelled. Requests are spread over the interval to avoid bursts with many jobs."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
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
        if job is None or job.uid != pod.job_uid or job.status.completion_time is not None:
            return None
        return job

    async def _poll(self, session: aiohttp.ClientSession, job: CachedJob, pod: Pod) -> None:
        await asyncio.sleep(random.uniform(0, SPREAD * self._interval))
        try:
            run = await self._fetch(session, pod)
        except Exception as error:
            # An agent that starts or terminates does not respond, or breaks off; a later poll or its termination message has
            # the status. No answer of a pod may end the operator: aiohttp passes on errors of its parser as they are.
            logger.debug("%s: no progress from %s: %r", job.key, pod.name, error)
            # A pod that sends nonsense is alive all the same.
            self._on_contact(job, pod.uid, not isinstance(error, (OSError, TimeoutError, aiohttp.ClientConnectionError)))
            return
        self._on_contact(job, pod.uid, True)
        if run is not None and pod.index == 0:
            self._on_status(job, pod.uid, run)

    async def _fetch(self, session: aiohttp.ClientSession, pod: Pod) -> RunStatus | None:
        """The pod's answer; None if it is an error status. Raises an error of any kind for an incomplete or invalid answer."""
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        async with self._slots, session.get(f"http://{host}:{self._port}/progress") as response:
            if response.status != 200:
                return None
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise ValueError(f"the answer has more than {MAX_RESPONSE_BYTES} bytes")
            return RunStatus.model_validate_json(body, extra="ignore")
