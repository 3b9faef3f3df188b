"""Adds the defaults of a profile to the workers of a job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, TypeVar

from finetune_operator.api.pod_template import SecurityContext, VolumeMount
from finetune_operator.api.resources import Resources
from finetune_operator.api.workers import ScratchVolume, Workers
from finetune_operator.profiles.model import Defaults, Profile
from finetune_trainer.config.base import Section

S = TypeVar("S", bound=Section)
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)")


def merge(workers: Workers, defaults: Defaults) -> Workers:
    """The workers with the defaults for everything that they do not set."""
    resources = _merge_resources(workers.resources, defaults.resources)
    requested = resources.requests | resources.limits
    for gpu, per_gpu in defaults.resources_per_gpu.items():
        count = int(requested[gpu]) if str(requested.get(gpu, "")).isdecimal() else 0
        if count:
            resources = _merge_resources(resources, _scaled(per_gpu, count))
    return workers.model_copy(
        update={
            "image": workers.image or defaults.image,
            "resources": resources,
            "scratch": _merge_scratch(workers.scratch, defaults.scratch),
            "shared_memory": workers.shared_memory if workers.shared_memory is not None else defaults.shared_memory,
            "template": _merge_sections(workers.template, defaults.template),
        }
    )


def conflicts(workers: Workers, profile: Profile) -> Iterator[str]:
    """The sentences about fields of the job that contradict each other once they are merged with the defaults."""
    own, default = workers.template.security_context, profile.defaults.template.security_context
    if own.has_ids and own.assign_ids is None and default.assign_ids == "Cluster":
        yield (
            f"spec.workers.template.securityContext.assignIds: profile {profile.name} lets the cluster assign the ids: remove "
            "runAsUser, runAsGroup and fsGroup, or set assignIds: Operator"
        )


def _merge_sections(own: S, defaults: S) -> S:
    """The fields that the job sets, and the defaults for the others; sections, maps and lists in them are merged likewise."""
    return own.model_copy(
        update={field: _merge(getattr(own, field), getattr(defaults, field)) for field in type(own).model_fields}
    )


def _merge(own: Any, default: Any) -> Any:
    if own is None:
        return default
    if isinstance(own, SecurityContext):
        return _merge_security_contexts(own, default)
    if isinstance(own, dict):
        return default | own
    if isinstance(own, list):
        keys = [_key(item) for item in own]
        return [item for item in default if _key(item) not in keys] + own
    return own


def _merge_scratch(own: ScratchVolume, defaults: ScratchVolume) -> ScratchVolume:
    """The size and the StorageClass of a profile are meant for its type of volume."""
    has_other_type = own.type is not None and defaults.type is not None and own.type != defaults.type
    return own if has_other_type else _merge_sections(own, defaults)


def _merge_security_contexts(own: SecurityContext, defaults: SecurityContext) -> SecurityContext:
    merged = _merge_sections(own, defaults)
    return merged.without_ids() if merged.assign_ids == "Cluster" else merged


def _key(item: Any) -> Any:
    """What makes an entry of a list the same entry: its path for a mount, its name where it has one, or else all of it."""
    if isinstance(item, VolumeMount):
        return item.mount_path.rstrip("/")
    return getattr(item, "name", item)


def _merge_resources(own: Resources, defaults: Resources) -> Resources:
    """The job's resources and the defaults for those it does not mention, neither as request nor as limit."""
    mentioned = own.requests | own.limits
    added = [
        {name: quantity for name, quantity in part.items() if name not in mentioned}
        for part in (defaults.requests, defaults.limits)
    ]
    return Resources(requests=added[0] | own.requests, limits=added[1] | own.limits)


def _scaled(resources: Resources, factor: int) -> Resources:
    parts = (
        {name: _multiply(value, factor) for name, value in part.items()} for part in (resources.requests, resources.limits)
    )
    requests, limits = parts
    return Resources(requests=requests, limits=limits)


def _multiply(quantity: int | str, factor: int) -> int | str:
    if isinstance(quantity, int):
        return quantity * factor
    match = QUANTITY.fullmatch(quantity)
    if match is None:
        return quantity  # the API server rejects the pod, and names the value
    number = Decimal(match[1]) * factor
    return f"{number.normalize():f}{match[2]}"
