"""The generated CRD is structural, and everything that rules read is bounded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.schema_nodes import NODES

from finetune_operator.codegen.crd import COLUMNS, build_crd
from finetune_trainer.config.objectives import CONFIGS


def test_schema_is_structural() -> None:
    forbidden = ("$ref", "$defs", "title", "const", "oneOf", "allOf", "not")
    for path, node in NODES.items():
        assert not set(forbidden) & set(node), path
        assert "type" in node or "x-kubernetes-int-or-string" in node or "x-kubernetes-preserve-unknown-fields" in node, path
        assert not isinstance(node.get("additionalProperties"), bool), path
        assert "anyOf" not in node or node["x-kubernetes-int-or-string"] is True, path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".spec.data.evaluationFraction", {"minimum": 0, "exclusiveMinimum": True, "maximum": 0.5}),
        (".spec.method.lora.dropout", {"minimum": 0, "maximum": 1, "exclusiveMaximum": True}),
        (".spec.deepspeed.zeroStage", {"enum": [0, 1, 2, 3], "default": 1}),
        (".spec.objective.type", {"enum": list(CONFIGS), "default": "CausalLM"}),
        (".spec.data.evaluation", {"type": "array", "default": [], "maxItems": 64}),
        (
            ".spec.deepspeed",
            {"default": {"zeroStage": 1, "offload": {"optimizer": "None", "parameters": "None"}, "config": {}}},
        ),
        (".spec.model.config", {"additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}}),
        (".spec.workers.template.tolerations[]", {"additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}}),
        (".spec.workers.resources.limits[]", {"x-kubernetes-int-or-string": True}),
        (".spec.model.tokenizer", {"type": "object"}),
        (".metadata", {"type": "object"}),
        (".status.conditions", {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ],
)
def test_schema_of_a_field(path: str, expected: dict[str, Any]) -> None:
    assert {key: NODES[path].get(key) for key in expected} == expected


def is_within_bounds(node: Mapping[str, Any], value: float, convert: type[float] | type[int] = float) -> bool:
    """Whether a number is within the bounds of a field, after each bound is converted."""
    low = convert(node["minimum"]) if "minimum" in node else -math.inf
    high = convert(node["maximum"]) if "maximum" in node else math.inf
    is_high_enough = value > low if node.get("exclusiveMinimum") else value >= low
    is_low_enough = value < high if node.get("exclusiveMaximum") else value <= high
    return is_high_enough and is_low_enough


def differing_integers(node: Mapping[str, Any]) -> list[float]:
    """Integers that an API server and Python validate differently.

    The server compares an integer with the integer part of a bound (kube-openapi, validate.MaximumNativeType).
    """
    bounds = [node[bound] for bound in ("minimum", "maximum") if bound in node]
    nearby = {value + step for bound in bounds for value in (math.floor(bound), math.ceil(bound)) for step in (-1, 0, 1)}
    return sorted(value for value in nearby if is_within_bounds(node, value) != is_within_bounds(node, value, int))


def test_api_server_validates_integers_like_python() -> None:
    assert differing_integers({"type": "number", "minimum": 0, "maximum": 0.5, "exclusiveMaximum": True}) == [0]
    assert {path: values for path, node in NODES.items() if (values := differing_integers(node))} == {}


def walk_default(node: Mapping[str, Any], value: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Yield a default and every value in it, each with its schema."""
    yield node, value
    if isinstance(value, dict):
        for name, child in value.items():
            yield from walk_default(node.get("properties", {}).get(name, {}), child)
    elif isinstance(value, list):
        for child in value:
            yield from walk_default(node["items"], child)


def test_defaults_are_within_bounds() -> None:
    numbers = []
    for path, node in NODES.items():
        if "default" not in node:
            continue
        for field, value in walk_default(node, node["default"]):
            if isinstance(value, int | float):
                numbers.append((path, field, value))
    assert len(numbers) > 100
    assert [(path, value) for path, field, value in numbers if not is_within_bounds(field, value)] == []


# Literals, has() and startsWith() do not depend on the length of a field.
COSTLESS = re.compile(r"[\w.]+\.startsWith\('[^']*'\)|'[^']*'|has\([^()]*\)")
FIELD_ACCESS = re.compile(r"(?<![\w.])([a-z]\w*)((?:\.\w+)*)(?:\((\w+),)?")
MACROS = ("all", "exists", "exists_one", "filter", "map")
BOUNDS = {"array": "maxItems", "string": "maxLength", "object": "maxProperties"}


def unbounded_fields(node: Mapping[str, Any], rule: str) -> list[str]:
    """Fields of unlimited length that a rule of the object reads; the API server rejects rules whose cost is too high."""
    variables: dict[str, Mapping[str, Any]] = {"self": node}
    unbounded = []
    for match in FIELD_ACCESS.finditer(COSTLESS.sub("true", rule)):
        root, fields, variable = match[1], match[2].split(".")[1:], match[3]
        if root not in variables:
            continue
        field = variables[root]
        for name in fields:
            field = field["properties"][name] if name in field.get("properties", {}) else field
        if variable and fields[-1] in MACROS:
            variables[variable] = field.get("items", {"type": "string"})  # a map has keys
        bound = BOUNDS.get(field.get("type", ""))
        if bound and bound not in field and not {"enum", "properties"} & set(field):
            unbounded.append(match[0])
    return unbounded


def test_fields_that_rules_read_are_bounded() -> None:
    loose = {"properties": {"tasks": {"type": "array", "maxItems": 8, "items": {"properties": {"name": {"type": "string"}}}}}}
    assert unbounded_fields(loose, "self.tasks.all(t, t.name != 'a')") == ["t.name"]
    assert unbounded_fields({"type": "array", "items": {"type": "string"}}, "self.all(one, one.matches('^a'))") == [
        "self.all(one,", "one.matches",
    ]  # fmt: skip
    rules = []
    for path, node in NODES.items():
        for entry in node.get("x-kubernetes-validations", ()):
            is_transition = "oldSelf" in entry["rule"]
            reads_name = entry["rule"].startswith("size(self.metadata.name)")  # the API server bounds names itself
            if not is_transition and not reads_name:
                rules.append((path, node, entry["rule"]))
    assert len(rules) > 80
    assert {path: fields for path, node, rule in rules if (fields := unbounded_fields(node, rule))} == {}


def test_status_has_no_defaults() -> None:
    assert [path for path, node in NODES.items() if path.startswith(".status") and "default" in node] == []


def test_columns_print_existing_fields() -> None:
    existing = {*NODES, ".metadata.creationTimestamp"}
    assert [column.path for column in COLUMNS if column.path not in existing] == []


def test_names_of_the_crd() -> None:
    spec = build_crd()["spec"]
    assert spec["names"] == {
        "kind": "FineTuneJob",
        "listKind": "FineTuneJobList",
        "plural": "finetunejobs",
        "singular": "finetunejob",
        "shortNames": ["ftj"],
        "categories": ["ml"],
    }
    scale = {
        "specReplicasPath": ".spec.workers.nodes",
        "statusReplicasPath": ".status.workers.replicas",
        "labelSelectorPath": ".status.workers.selector",
    }
    assert spec["versions"][0]["subresources"] == {"status": {}, "scale": scale}
