"""The CustomResourceDefinition, generated from the models.

The API server takes only structural schemas: no `$ref`, no `anyOf` with null, no titles, exclusive bounds as flags beside
the bound. Pydantic's generator is bent accordingly at the few places where it says such things, and the rules of each
`Section` become `x-kubernetes-validations` of the object they stand on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from finetune_operator.api.job import GROUP, KIND, PLURAL, SHORT_NAME, VERSION, FineTuneJob
from finetune_trainer.config.base import Section

NAME = f"{PLURAL}.{GROUP}"
PRESERVE = "x-kubernetes-preserve-unknown-fields"

# Name, type, path and priority (1 shows in `kubectl get -o wide` only) of what `kubectl get finetunejobs` prints.
COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Progress%", "integer", ".status.progress.percent", 0),
    ("Step", "integer", ".status.progress.step", 0),
    ("Loss", "number", ".status.progress.loss", 0),
    ("ETA", "string", ".status.eta", 0),
    ("Ready", "string", ".status.workers.summary", 0),
    ("Restarts", "integer", ".status.restarts.total", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Steps", "integer", ".status.progress.totalSteps", 1),
    ("EvalLoss", "number", ".status.progress.evalLoss", 1),
    ("Tokens/s", "number", ".status.progress.tokensPerSecond", 1),
    ("Checkpoint", "integer", ".status.checkpoint.step", 1),
    ("Failure", "string", ".status.failure.reason", 1),
    ("Model", "string", ".status.model", 1),
)


class Structural(GenerateJsonSchema):
    """Pydantic's JSON schema in the form that apiextensions/v1 takes."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """An absent field stands for None; null itself is not a value in the document."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Keep defaults made by a factory too, as the API server has to fill in the same document as Python."""
        factory = schema.get("default_factory")
        default: Any = factory() if factory is not None else schema.get("default")  # type: ignore[call-arg]  # none takes data
        inner = self.generate_inner(schema["schema"])
        if default is None:
            return inner
        return inner | {"default": default.document() if isinstance(default, Section) else default}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """Write exclusive bounds as flags."""
        return _flagged(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """Write exclusive bounds as flags."""
        return _flagged(super().float_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """One permitted value is an enumeration of one."""
        result = super().literal_schema(schema)
        return result | {"enum": [result.pop("const")]} if "const" in result else result

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Add the section's rules, and keep of its docstring the first paragraph."""
        cls: type[BaseModel] = schema["cls"]
        result = super().model_schema(schema)
        result["description"] = re.sub(r"\s+", " ", (cls.__doc__ or "").strip().split("\n\n")[0])
        if issubclass(cls, Section) and cls.rules:
            result["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return result


def _flagged(schema: JsonSchemaValue) -> JsonSchemaValue:
    for side in ("Minimum", "Maximum"):
        if f"exclusive{side}" in schema:
            schema[side.lower()] = schema[f"exclusive{side}"]
            schema[f"exclusive{side}"] = True
    return schema


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema without references, titles and what structural schemas leave unsaid."""
    if "$ref" in node:
        node = definitions[node["$ref"].removeprefix("#/$defs/")] | {k: v for k, v in node.items() if k != "$ref"}
    result: dict[str, Any] = {}
    for key, value in node.items():
        match key, value:
            case ("title" | "$defs", _) | ("additionalProperties", bool()):
                continue
            case "properties", _:  # The names of fields are not keywords, so a field called title stays.
                result[key] = {name: _inlined(field, definitions) for name, field in value.items()}
            case "items" | "additionalProperties", _:
                result[key] = _inlined(value, definitions)
            case _:
                result[key] = value
    if result.get("x-kubernetes-int-or-string"):
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if result.pop(PRESERVE, False):
        # Said of the object itself, the API server would find {a: 1} and {b: 1} equal, and let a frozen field change.
        result["additionalProperties"] = {PRESERVE: True}
    return result


def _without_defaults(node: Any) -> Any:
    """A schema that fills in nothing: an empty status says that no operator has looked yet."""
    if isinstance(node, dict):
        return {key: _without_defaults(value) for key, value in node.items() if key != "default"}
    return node


def schema() -> dict[str, Any]:
    """The structural OpenAPI v3 schema of a FineTuneJob."""
    raw = FineTuneJob.model_json_schema(by_alias=True, schema_generator=Structural)
    root: dict[str, Any] = _inlined(raw, raw.get("$defs", {}))
    properties = root["properties"]
    properties |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        # The API server knows metadata; naming the name makes it an address that a rule may point to.
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "status": _without_defaults(properties["status"]),
    }
    conditions = properties["status"]["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return root | {"required": ["spec"]}


def crd() -> dict[str, Any]:
    """The whole CustomResourceDefinition, ready for `kubectl apply`."""
    columns = [
        {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})
        for name, kind, path, priority in COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
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
                    "schema": {"openAPIV3Schema": schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }
