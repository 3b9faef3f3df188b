"""Types shared by the Kubernetes client and its callers."""

from __future__ import annotations

from typing import NamedTuple


class JobKey(NamedTuple):
    """Namespace and name of a FineTuneJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ListSnapshot(NamedTuple):
    """The UIDs of all objects in a list, and the resourceVersion of the list."""

    resource_version: int
    uids: frozenset[str]

    def shows_deleted(self, uid: str, resource_version: int) -> bool:
        """Whether the list proves that an object is deleted: it is absent although its version is not newer than the list."""
        return uid not in self.uids and resource_version <= self.resource_version


class NodeState(NamedTuple):
    """Name of a node, whether it is ready, and whether it can run pods of jobs."""

    name: str
    is_ready: bool
    accepts_pods: bool
