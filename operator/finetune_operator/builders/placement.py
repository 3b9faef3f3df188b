"""Where a queue places the pods of an admitted job: what Kueue's ResourceFlavors and admission checks add to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Placement:
    """Fields that every pod of the job gets, beside those of its template."""

    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


def merge_placement(flavors: Iterable[dict[str, Any]], pod_updates: Iterable[dict[str, Any]]) -> Placement:
    """The placement of a Workload with these ResourceFlavors and these podSetUpdates of its admission checks."""
    result = Placement()
    for flavor in flavors:
        spec = flavor.get("spec") or {}
        result.node_selector.update(spec.get("nodeLabels") or {})
        _add_tolerations(result, spec)
    for update in pod_updates:
        result.node_selector.update(update.get("nodeSelector") or {})
        result.labels.update(update.get("labels") or {})
        result.annotations.update(update.get("annotations") or {})
        _add_tolerations(result, update)
    return result


def _add_tolerations(placement: Placement, source: dict[str, Any]) -> None:
    for toleration in source.get("tolerations") or ():
        if toleration not in placement.tolerations:
            placement.tolerations.append(toleration)
