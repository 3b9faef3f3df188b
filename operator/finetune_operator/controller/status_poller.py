"""Asks node 0 of every running job how far it is."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator

import aiohttp
from pydantic import ValidationError

from finetune_operator import names
from finetune_operator.controller.informer_cache import CachedJob, InformerCache, JobKey
from finetune_operator.reconcile import Pod
from finetune_trainer.protocol.outcome import RunStatus

logger = logging.getLogger(__name__)

TIMEOUT = 2.0  # seconds for an answer
MOST_BYTES = 65536  # of an answer
AT_ONCE = 32  # simultaneous questions


class StatusPoller:
    """Calls `news(job, pod UID, status)` for every answer."""

    def __init__(
        self,
        cache: InformerCache,
        interval: float,
        news: Callable[[CachedJob, str, RunStatus], None],
        port: int = names.HTTP_PORT,
    ) -> None:
        self._cache, self._interval, self._news, self._port = cache, interval, news, port
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Ask until cancelled. Questions are spread over the interval, so that many jobs are no burst."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                pause = asyncio.create_task(asyncio.sleep(self._interval))
                await asyncio.gather(*(self._ask(session, job, pod) for job, pod in self._targets()))
                await pause

    def _targets(self) -> Iterator[tuple[CachedJob, Pod]]:
        for key, pod in list(self._cache.all_pods()):
            job = self._job(key, pod)
            if job is not None and pod.index == 0 and pod.phase == "Running" and pod.address and pod.deletion_deadline is None:
                yield job, pod

    def _job(self, key: JobKey, pod: Pod) -> CachedJob | None:
        job = self._cache.jobs.get(key)
        return job if job is not None and job.uid == pod.job_uid and job.status.completion_time is None else None

    async def _ask(self, session: aiohttp.ClientSession, job: CachedJob, pod: Pod) -> None:
        await asyncio.sleep(random.uniform(0, 0.8 * self._interval))
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        try:
            async with self._limit, session.get(f"http://{host}:{self._port}/progress") as answer:
                if answer.status != 200:
                    return
                text = await answer.content.read(MOST_BYTES)
                self._news(job, pod.uid, RunStatus.model_validate_json(text, extra="ignore"))
        except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
            # An agent that starts or ends does not answer; what it does answer is in the status before long.
            logger.debug("%s: no progress from %s: %r", job.key, pod.name, error)
