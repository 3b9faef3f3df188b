"""The CustomResourceDefinition, generated from the models.

The API server accepts only structural schemas (apiextensions.k8s.io/v1): no `$ref`, no `anyOf` with null, no titles, and
exclusive bounds as flags next to the bound. `StructuralSchemaGenerator` adapts pydantic's generator where the two differ, and
the rules of each `Section` become the `x-kubernetes-validations` of its object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from finetune_operator.api.job import GROUP, KIND, PLURAL, SHORT_NAME, VERSION, FineTuneJob
from finetune_trainer.config.base import Section

CRD_NAME = f"{PLURAL}.{GROUP}"
PRESERVE_UNKNOWN_FIELDS = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"


class PrinterColumn(NamedTuple):
    """A column of `kubectl get finetunejobs`; wide ones are printed with `-o wide` only."""

    name: str
    type: str
    path: str
    is_wide: bool = False


COLUMNS = (
    PrinterColumn("Phase", "string", ".status.phase"),
    PrinterColumn("Reason", "string", ".status.reason"),
    PrinterColumn("Progress%", "integer", ".status.progress.percent"),
    PrinterColumn("Step", "integer", ".status.progress.step"),
    PrinterColumn("Loss", "number", ".status.progress.loss"),
    PrinterColumn("ETA", "string", ".status.eta"),
    PrinterColumn("Ready", "string", ".status.workers.summary"),
    PrinterColumn("Restarts", "integer", ".status.restarts.total"),
    PrinterColumn("Age", "date", ".metadata.creationTimestamp"),
    PrinterColumn("Steps", "integer", ".status.progress.totalSteps", is_wide=True),
    PrinterColumn("EvalLoss", "number", ".status.progress.evalLoss", is_wide=True),
    PrinterColumn("Tokens/s", "number", ".status.progress.tokensPerSecond", is_wide=True),
    PrinterColumn("Checkpoint", "integer", ".status.checkpoint.step", is_wide=True),
    PrinterColumn("Failure", "string", ".status.failure.reason", is_wide=True),
    PrinterColumn("Model", "string", ".status.model", is_wide=True),
)


SCALE = {
    "specReplicasPath": ".spec.workers.nodes",
    "statusReplicasPath": ".status.workers.replicas",
    "labelSelectorPath": ".status.workers.selector",
}
"""The scale subresource, which `kubectl scale` and autoscalers use."""


class StructuralSchemaGenerator(GenerateJsonSchema):
    """Generates JSON schemas in the form that apiextensions.k8s.io/v1 accepts."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Drop null: in a document None is an absent field."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Include defaults from factories, because the API server must fill in the defaults that Python does."""
        factory = schema.get("default_factory")
        default: Any = factory() if factory is not None else schema.get("default")  # type: ignore[call-arg]  # no factory takes data
        inner = self.generate_inner(schema["schema"])
        if default is None:
            return inner
        return inner | {"default": default.document() if isinstance(default, Section) else default}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """Write exclusive bounds as flags."""
        return _with_exclusive_flags(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """Write exclusive bounds as flags."""
        return _with_exclusive_flags(super().float_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """Write a single permitted value as an enumeration."""
        result = super().literal_schema(schema)
        return result | {"enum": [result.pop("const")]} if "const" in result else result

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Use the first paragraph of the docstring as the description, and add the rules of the section."""
        cls: type[BaseModel] = schema["cls"]
        result = super().model_schema(schema)
        result["description"] = re.sub(r"\s+", " ", (cls.__doc__ or "").strip().split("\n\n")[0])
        if issubclass(cls, Section) and cls.rules:
            result["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return result


def _with_exclusive_flags(schema: JsonSchemaValue) -> JsonSchemaValue:
    for bound in ("Minimum", "Maximum"):
        flag = f"exclusive{bound}"
        if flag in schema:
            schema[bound.lower()] = schema[flag]
            schema[flag] = True
    return schema


def _to_structural(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Inline the references of a schema, and drop titles and keywords that structural schemas do not allow."""
    if "$ref" in node:
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        node = definitions[node["$ref"].removeprefix("#/$defs/")] | siblings
    result: dict[str, Any] = {}
    for key, value in node.items():
        match key, value:
            case ("title" | "$defs", _) | ("additionalProperties", bool()):
                continue
            case "properties", _:  # its keys are names of fields, of which one may be "title"
                result[key] = {name: _to_structural(field, definitions) for name, field in value.items()}
            case "items" | "additionalProperties", _:
                result[key] = _to_structural(value, definitions)
            case _:
                result[key] = value
    if result.get(INT_OR_STRING):
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if result.pop(PRESERVE_UNKNOWN_FIELDS, False):
        # On the object itself, CEL would treat {a: 1} and {b: 1} as equal, and an immutable field could change.
        result["additionalProperties"] = {PRESERVE_UNKNOWN_FIELDS: True}
    return result


def _without_defaults(node: Any) -> Any:
    """Drop all defaults: an empty status means that no operator has reconciled the job yet."""
    if isinstance(node, dict):
        return {key: _without_defaults(value) for key, value in node.items() if key != "default"}
    return node


def build_schema() -> dict[str, Any]:
    """Build the structural OpenAPI v3 schema of a FineTuneJob."""
    raw = FineTuneJob.model_json_schema(by_alias=True, schema_generator=StructuralSchemaGenerator)
    root: dict[str, Any] = _to_structural(raw, raw.get("$defs", {}))
    properties = root["properties"]
    properties |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        # The API server validates metadata itself. Listing the name lets a rule refer to it.
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "status": _without_defaults(properties["status"]),
    }
    conditions = properties["status"]["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return root | {"required": ["spec"]}


def _printer_column(column: PrinterColumn) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.is_wide:
        entry["priority"] = 1
    return entry


def build_crd() -> dict[str, Any]:
    """Build the CustomResourceDefinition, ready for `kubectl apply`."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["ml"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": build_schema()},
                    "subresources": {"status": {}, "scale": SCALE},
                    "additionalPrinterColumns": [_printer_column(column) for column in COLUMNS],
                }
            ],
        },
    }
