"""What the queue that admitted a job decides about its pods: where they run, and the resources that they may use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Placement:
    """Fields that every pod of the job gets, beside those of its template.

    `resources` replace the requests and limits of containers, by name: a profile may have other defaults by now, but the quota
    was reserved for these.
    """

    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    resources: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def merge_placement(
    flavors: Iterable[dict[str, Any]],
    pod_updates: Iterable[dict[str, Any]],
    resources: Mapping[str, dict[str, Any]] | None = None,
) -> Placement:
    """The placement of a Workload with these ResourceFlavors, podSetUpdates of its admission checks, and resources."""
    result = Placement(resources=resources or {})
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
