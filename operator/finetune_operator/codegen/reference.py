"""docs/reference/finetunejob.md, generated from the CRD's schema: every field with its type, default, bounds and rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finetune_operator.api.job import API_VERSION, KIND
from finetune_operator.codegen.crd import COLUMNS, INT_OR_STRING, build_schema
from finetune_operator.codegen.troubleshooting_pages import exit_flags
from finetune_trainer.protocol.outcome import EXIT_POLICIES

INTRODUCTION = f"""\
# FineTuneJob

All fields of a document with `apiVersion: {API_VERSION}` and `kind: {KIND}`. Fields without *required* may be omitted.
The API server and `finetune validate` reject documents that break a rule, with the sentence given here.

This page is generated from the models in `operator/finetune_operator/api` and `trainer/finetune_trainer/config` by
`make generate`; do not edit it.
"""


def render_reference() -> str:
    """Render the page as Markdown."""
    return "\n".join([INTRODUCTION, *_objects(build_schema()), *_columns(), *_exit_codes()])


def _objects(root: dict[str, Any]) -> Iterator[str]:
    yield "## metadata\n"
    yield from _rules(root)
    for name in ("spec", "status"):
        yield from _object(name, root["properties"][name])


def _object(path: str, node: dict[str, Any]) -> Iterator[str]:
    """Yield the section of one object, followed by those of the objects in it."""
    required = node.get("required", ())
    yield f"## {path}\n\n{node.get('description', '')}\n"
    yield "| Field | Type | Default | Description |\n|---|---|---|---|"
    for name, field in node["properties"].items():
        default = "*required*" if name in required else _default(field)
        yield f"| `{name}` | {_type(field)} | {default} | {_cell(_description(field))} |"
    yield ""
    yield from _rules(node)
    for name, field in node["properties"].items():
        is_list = "items" in field
        child = field["items"] if is_list else field
        if "properties" in child:
            yield from _object(f"{path}.{name}[]" if is_list else f"{path}.{name}", child)


def _rules(node: dict[str, Any]) -> Iterator[str]:
    """List the rules of an object with the field that each is about; rules with equal sentences are listed once."""
    lines: dict[str, None] = {}
    for rule in node.get("x-kubernetes-validations", ()):
        field = rule.get("fieldPath", "").removeprefix(".")
        lines[f"- `{field}`: {rule['message']}" if field else f"- {rule['message']}"] = None
    if lines:
        yield "Rules:\n"
        yield from lines
        yield ""


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    if INT_OR_STRING in field:
        return "quantity"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}{_bounds(field, 'Items', ' items')}"
    values = field.get("additionalProperties")
    if isinstance(values, dict):
        has_type = "type" in values or "anyOf" in values
        return f"map of {_type(values)}" if has_type else "any object"
    length, value_range = _bounds(field, "Length", " characters"), _bounds(field, "imum")
    return f"{field['type']}{length}{value_range}"


def _bounds(field: dict[str, Any], suffix: str, unit: str = "") -> str:
    """Format the permitted range: ≥ and ≤, or > and < for exclusive bounds."""
    low, high = field.get(f"min{suffix}"), field.get(f"max{suffix}")
    above = ">" if field.get("exclusiveMinimum") else "≥"
    below = "<" if field.get("exclusiveMaximum") else "≤"
    bounds = [f"{sign} {bound}" for sign, bound in ((above, low), (below, high)) if bound is not None]
    return f", {' and '.join(bounds)}{unit}" if bounds else ""


def _default(field: dict[str, Any]) -> str:
    if "default" not in field or "properties" in field:
        return ""
    value = field["default"]
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _description(field: dict[str, Any]) -> str:
    text = str(field.get("description") or field.get("items", {}).get("description", ""))
    if "properties" in field:  # its rules are listed in its own section
        return text
    rules = [f"Rule: {rule['message']}." for rule in field.get("x-kubernetes-validations", ())]
    return " ".join([text, *rules]).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _columns() -> Iterator[str]:
    yield "## Columns of kubectl get finetunejobs\n\n| Column | Field | Printed |\n|---|---|---|"
    for column in COLUMNS:
        printed = "with `-o wide`" if column.is_wide else "always"
        yield f"| {column.name.upper()} | `{column.path.removeprefix('.')}` | {printed} |"
    yield ""


def _exit_codes() -> Iterator[str]:
    yield (
        "## Exit codes of a trainer pod\n\n"
        "*Restart in place*: the agent may restart the ranks in the same pod. *Replace pod*: the operator may replace the pod. "
        "*Counted*: a replacement counts towards `spec.runPolicy.backoffLimit`.\n\n"
        "| Code | Reason | Meaning | Restart in place | Replace pod | Counted |\n|---|---|---|---|---|---|"
    )
    for reason, policy in EXIT_POLICIES.items():
        yield f"| {policy.exit_code} | {reason} | {policy.meaning} | {exit_flags(policy)} |"
    yield ""
