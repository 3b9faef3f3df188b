"""Resolves where the pods of an admitted job run, with a cache of Kueue's ResourceFlavors."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.builders import Placement, merge_placement
from finetune_operator.builders.workload import WORKLOAD_API_VERSION
from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.reconcile import ReasonMessage, Workload

CACHE_SECONDS = 60.0  # a ResourceFlavor is read again after this time


class PlacementCache:
    """Reads ResourceFlavors, and keeps each for a while."""

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._flavors: dict[str, tuple[float, dict[str, Any]]] = {}

    async def placement(self, workload: Workload) -> tuple[Placement | None, ReasonMessage | None]:
        """The placement of an admitted Workload, or the reason why it is unknown."""
        try:
            flavors = await asyncio.gather(*(self._flavor(name) for name in workload.flavors))
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            message = f"The ResourceFlavor that admitted the job cannot be read: {error.message}"
            return None, ReasonMessage(ConditionReason.RESOURCE_FLAVOR_NOT_FOUND, message)
        return merge_placement(flavors, workload.pod_updates, workload.resources), None

    async def _flavor(self, name: str) -> dict[str, Any]:
        now = time.monotonic()
        read, flavor = self._flavors.get(name, (-CACHE_SECONDS, {}))
        if now - read >= CACHE_SECONDS:
            flavor = await self._client.get_object(WORKLOAD_API_VERSION, "ResourceFlavor", None, name)
            self._flavors[name] = now, flavor
        return flavor
