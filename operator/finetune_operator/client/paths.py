"""Paths of objects and collections in the API of Kubernetes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from finetune_operator.api import GROUP, PLURAL, VERSION

JOBS = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
CORE = "/api/v1"
EVENTS = "/apis/events.k8s.io/v1/events"
LEASES = "/apis/coordination.k8s.io/v1/leases"


def collection(body: dict[str, Any]) -> str:
    """The path of all objects of the kind of an object."""
    return resource_path(body["apiVersion"], body["kind"])


def resource_path(api_version: str, kind: str) -> str:
    """The path of all objects of a kind; every kind that the operator uses has a regular plural."""
    root = CORE if api_version == "v1" else f"/apis/{api_version}"
    singular = kind.lower()
    if singular.endswith("y"):
        return f"{root}/{singular[:-1]}ies"
    return f"{root}/{singular}{'es' if singular.endswith('s') else 's'}"


def object_path(prefix: str, namespace: str | None, *rest: str) -> str:
    """The path of a resource; `prefix` ends with the resource name, and the namespace is inserted before it."""
    root, resource = prefix.rsplit("/", 1)
    parts = ["namespaces", quote(namespace), resource] if namespace else [resource]
    return "/".join([root, *parts, *(quote(part) for part in rest)])


def resource_of(path: str) -> str:
    """The resource of a path for the request metric, such as `pods` or `finetunejobs/status`."""
    parts = path.split("?")[0].split("/")
    if "namespaces" not in parts:
        return parts[-1]
    after = parts[parts.index("namespaces") + 2 :]
    return "/".join([after[0], *after[2:]])
