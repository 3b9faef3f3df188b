"""Keeps the Service of each namespace with jobs, through which their pods find each other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from finetune_operator import builders
from finetune_operator.api.conditions import ConditionReason
from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.reconcile import ReasonMessage

CHECK_INTERVAL = timedelta(seconds=10)  # after which a Service is looked up again, because someone may have deleted it


class ServiceKeeper:
    """Creates the Services that are missing."""

    def __init__(self, client: KubernetesClient, clock: Callable[[], datetime]) -> None:
        self._client, self._clock = client, clock
        self._checked: dict[str, datetime] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, namespace: str) -> ReasonMessage | None:
        """Create the Service of a namespace unless it exists. Returns the obstacle if its name is taken.

        Raises ApiError, for example if a quota has no room for it.
        """
        async with self._locks[namespace]:  # many jobs that start together look once
            checked = self._checked.get(namespace)
            if checked is not None and self._clock() < checked + CHECK_INTERVAL:
                return None
            obstacle = await self._ensure(namespace)
            if obstacle is None:
                self._checked[namespace] = self._clock()
            return obstacle

    async def _ensure(self, namespace: str) -> ReasonMessage | None:
        wanted = builders.build_service(namespace)
        name = wanted["metadata"]["name"]
        try:
            found = await self._client.get_object("v1", "Service", namespace, name)
        except ApiError as error:
            if error.status != 404:
                raise
            await self._create(wanted)
            return None
        spec = found["spec"]
        if spec.get("clusterIP") == "None" and spec.get("selector") == wanted["spec"]["selector"]:
            return None
        message = f"Service {name} exists but does not select the pods of jobs: delete it; the operator creates it again."
        return ReasonMessage(ConditionReason.NAME_CONFLICT, message)

    async def _create(self, body: dict[str, object]) -> None:
        try:
            await self._client.create(body)
        except ApiError as error:
            if error.reason != "AlreadyExists":  # another operator was faster
                raise
