"""Checks which Secrets of a job exist, with a cache for those that do."""

from __future__ import annotations

import asyncio
import time

from finetune_operator.api import FineTuneJob
from finetune_operator.builders.uri_references import referenced_secrets
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.reconcile import MissingSecret

CACHE_SECONDS = 60.0  # an existing Secret is checked again after this time


class SecretCache:
    """Checks that Secrets exist. Existing ones are cached for a while; missing ones are checked each time."""

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._last_found: dict[tuple[str, str], float] = {}

    async def missing_secrets(self, job: FineTuneJob) -> tuple[MissingSecret, ...]:
        """The Secrets that fields of the job name and that do not exist."""
        namespace, referenced = job.metadata.namespace, referenced_secrets(job)
        exists = await asyncio.gather(*(self._exists(namespace, name) for name in referenced))
        missing = []
        for (name, field), secret_exists in zip(referenced.items(), exists, strict=True):
            if not secret_exists:
                missing.append(MissingSecret(field, name))
        return tuple(missing)

    async def _exists(self, namespace: str, name: str) -> bool:
        now = time.monotonic()
        last_found = self._last_found.get((namespace, name))
        if last_found is not None and now - last_found < CACHE_SECONDS:
            return True
        exists = await self._client.secret_exists(namespace, name)
        if exists:
            self._last_found[namespace, name] = now
        return exists
