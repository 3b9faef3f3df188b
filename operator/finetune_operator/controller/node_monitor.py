"""Reads which nodes are ready, but only while a pod looks as if its node were lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from finetune_operator.client.errors import ApiError
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.reconcile import ObservedNodes, Pod

logger = logging.getLogger(__name__)

MAX_AGE_SECONDS = 5.0  # of the list of nodes
MEMORY_SECONDS = 120.0  # between two lists, for which a node that is not ready in both was not ready all the time
STARTING_SECONDS = 45.0  # a pod that is not ready yet does not look lost for this long; Kubernetes notices nothing earlier


class NodeMonitor:
    """Lists the nodes at most every few seconds, and remembers since when a node is not ready."""

    def __init__(self, client: KubernetesClient, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._client, self._clock = client, clock
        self._lock = asyncio.Lock()
        self._nodes: ObservedNodes | None = None
        self._listed = float("-inf")
        self._is_forbidden = False

    async def observe(self, pods: Iterable[Pod]) -> ObservedNodes | None:
        """The nodes; None if none of the pods looks lost, or if the operator may not list nodes."""
        if self._is_forbidden or not any(self._looks_lost(pod) for pod in pods):
            return None
        async with self._lock:
            if time.monotonic() - self._listed > MAX_AGE_SECONDS:
                await self._list()
        return self._nodes

    def may_be_lost(self, pod: Pod) -> bool:
        """Whether the node of a pod is reported as not ready, by the pod or by the last list of nodes."""
        return pod.node_lost_since is not None or (self._nodes is not None and pod.node in self._nodes.not_ready_since)

    def _looks_lost(self, pod: Pod) -> bool:
        if not pod.node or pod.is_finished or pod.ready:
            return False
        return pod.node_lost_since is not None or (self._clock() - pod.created).total_seconds() > STARTING_SECONDS

    async def _list(self) -> None:
        try:
            states = await self._client.list_nodes()
        except ApiError as error:
            if error.status != 403:
                raise
            self._is_forbidden = True
            logger.warning(
                "without the permission to list nodes, a lost node is recognized only by pods that were ready: %s", error
            )
            return
        age, self._listed, now = time.monotonic() - self._listed, time.monotonic(), self._clock()
        # After a pause a node may have been ready in between.
        known = self._nodes.not_ready_since if self._nodes is not None and age < MEMORY_SECONDS else {}
        self._nodes = ObservedNodes(
            not_ready_since={state.name: known.get(state.name, now) for state in states if not state.is_ready},
            ready=frozenset(state.name for state in states if state.is_ready),
            has_ready_worker=any(state.accepts_pods for state in states),
        )
