"""The objects and fields of the CRD's schema by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune_operator.codegen.crd import build_schema


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and the schema of an object and of everything in it."""
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from walk(field, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in node:
            yield from walk(node[keyword], f"{path}[]")


NODES = dict(walk(build_schema()))
