"""Adds the defaults of a profile to the workers of a job."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from finetune_operator.api.pod_template import PodTemplate, VolumeMount
from finetune_operator.api.resources import Resources
from finetune_operator.api.workers import Workers
from finetune_operator.profiles.model import Defaults

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
            "scratch": _own_or_default(workers, defaults, "scratch"),
            "shared_memory": workers.shared_memory if workers.shared_memory is not None else defaults.shared_memory,
            "template": _merge_templates(workers.template, defaults.template),
        }
    )


def _own_or_default(own: Any, defaults: Any, field: str) -> Any:
    value = getattr(own, field)
    return value if value != type(own).model_fields[field].default else getattr(defaults, field)


def _merge_templates(own: PodTemplate, defaults: PodTemplate) -> PodTemplate:
    merged: dict[str, Any] = {}
    for field in PodTemplate.model_fields:
        value, default = getattr(own, field), getattr(defaults, field)
        if isinstance(value, dict):
            merged[field] = default | value
        elif isinstance(value, list):
            keys = [_key(item) for item in value]
            merged[field] = [item for item in default if _key(item) not in keys] + value
        else:
            merged[field] = _own_or_default(own, defaults, field)
    return own.model_copy(update=merged)


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
