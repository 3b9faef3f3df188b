"""Keeps a pod away from nodes by their names, beside whatever its template says about nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REQUIRED, PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
MAX_WEIGHT = 100


def avoid_nodes(affinity: Mapping[str, Any], avoided: Sequence[str], last_resort: Sequence[str]) -> dict[str, Any]:
    """The affinity with which a pod never runs on `avoided`, and on `last_resort` only if no other node has room."""
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    if avoided:
        fields = [_is_not(name) for name in avoided]
        terms = (node_affinity.get(REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
        # A node must match one of the terms, so each of them excludes the avoided nodes.
        terms = [{**term, "matchFields": [*term.get("matchFields", ()), *fields]} for term in terms]
        node_affinity[REQUIRED] = {"nodeSelectorTerms": terms}
    if last_resort:
        preferences = [{"weight": MAX_WEIGHT, "preference": {"matchFields": [_is_not(name)]}} for name in last_resort]
        node_affinity[PREFERRED] = [*(node_affinity.get(PREFERRED) or ()), *preferences]
    return {**affinity, "nodeAffinity": node_affinity} if node_affinity else dict(affinity)


def _is_not(name: str) -> dict[str, Any]:
    """A requirement for the node's name; the API allows one value in each."""
    return {"key": "metadata.name", "operator": "NotIn", "values": [name]}
