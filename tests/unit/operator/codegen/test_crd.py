"""The generated definition is structural, bounded where rules look, and fresh."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.api import FineTuneJob
from finetune_operator.codegen import generate
from finetune_operator.codegen.crd import COLUMNS, crd, schema
from finetune_operator.codegen.reference import reference
from finetune_trainer.config.objectives import CONFIGS

SAMPLES = sorted((generate.ROOT / "manifests/samples").glob("*.yaml"))
JOBS = [path for path in SAMPLES if path.stem != "storage-secret"]


def _nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from _nodes(field, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in node:
            yield from _nodes(node[word], f"{path}[]")


NODES = dict(_nodes(schema()))


def test_the_schema_is_structural() -> None:
    foreign = ("$ref", "$defs", "title", "const", "oneOf", "allOf", "not")
    for path, node in NODES.items():
        assert not set(foreign) & set(node), path
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
        (".spec.workers.template.env[]", {"additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}}),
        (".spec.workers.resources.limits[]", {"x-kubernetes-int-or-string": True}),
        (".spec.model.tokenizer", {"type": "object"}),
        (".metadata", {"type": "object"}),
        (".status.conditions", {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ],
)
def test_each_kind_of_field(path: str, expected: dict[str, Any]) -> None:
    assert {key: NODES[path].get(key) for key in expected} == expected


def _holds(node: Mapping[str, Any], value: float, bound: type[float] | type[int] = float) -> bool:
    """Whether the number is within the node's bounds, each made a `bound` first."""
    low, high = (
        bound(node.get(side, end)) if side in node else end for side, end in (("minimum", -math.inf), ("maximum", math.inf))
    )
    above = value > low if node.get("exclusiveMinimum") else value >= low
    return above and (value < high if node.get("exclusiveMaximum") else value <= high)


def _misjudged(node: Mapping[str, Any]) -> list[float]:
    """Whole numbers of which an API server and Python think differently.

    The server compares a whole number with the whole part of a bound (kube-openapi, validate.MaximumNativeType).
    """
    bounds = [node[side] for side in ("minimum", "maximum") if side in node]
    near = {value + step for bound in bounds for value in (math.floor(bound), math.ceil(bound)) for step in (-1, 0, 1)}
    return sorted(value for value in near if _holds(node, value) != _holds(node, value, int))


def test_an_api_server_judges_whole_numbers_as_python_does() -> None:
    assert _misjudged({"type": "number", "minimum": 0, "maximum": 0.5, "exclusiveMaximum": True}) == [0]
    assert {path: wrong for path, node in NODES.items() if (wrong := _misjudged(node))} == {}


def _defaults(node: Mapping[str, Any], value: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """The value and all within it, each with its node."""
    yield node, value
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from _defaults(node.get("properties", {}).get(name, {}), inner)
    for inner in value if isinstance(value, list) else ():
        yield from _defaults(node["items"], inner)


def test_defaults_are_within_bounds() -> None:
    numbers = [
        (path, inner, value)
        for path, node in NODES.items() if "default" in node
        for inner, value in _defaults(node, node["default"]) if isinstance(value, int | float)
    ]  # fmt: skip
    assert len(numbers) > 100
    assert [(path, value) for path, inner, value in numbers if not _holds(inner, value)] == []


UNSEEN = re.compile(r"'[^']*'|has\([^()]*\)")  # texts, and whether a field is there, cost nothing
NAMED = re.compile(r"(?<![\w.])([a-z]\w*)((?:\.\w+)*)(?:\((\w+),)?")
MACROS = ("all", "exists", "exists_one", "filter", "map")
BOUNDS = {"array": "maxItems", "string": "maxLength", "object": "maxProperties"}


def _unbounded(node: Mapping[str, Any], rule: str) -> list[str]:
    """What the rule of the node looks at and may be of any length: an API server refuses rules that might cost too much."""
    known: dict[str, Mapping[str, Any]] = {"self": node}
    found = []
    for match in NAMED.finditer(UNSEEN.sub("true", rule)):
        root, fields, variable = match[1], match[2].split(".")[1:], match[3]
        if root not in known:
            continue
        place = known[root]
        for name in fields:
            place = place["properties"][name] if name in place.get("properties", {}) else place
        if variable and fields[-1] in MACROS:
            known[variable] = place["items"]
        is_long = BOUNDS.get(place.get("type", ""))
        if is_long and is_long not in place and not {"enum", "properties"} & set(place):
            found.append(match[0])
    return found


def test_what_rules_look_at_is_bounded() -> None:
    loose = {"properties": {"tasks": {"type": "array", "maxItems": 8, "items": {"properties": {"name": {"type": "string"}}}}}}
    assert _unbounded(loose, "self.tasks.all(t, t.name != 'a')") == ["t.name"]
    assert _unbounded({"type": "array", "items": {"type": "string"}}, "self.all(one, one.matches('^a'))") == [
        "self.all(one,", "one.matches",
    ]  # fmt: skip
    rules = [
        (path, node, entry["rule"]) for path, node in NODES.items() for entry in node.get("x-kubernetes-validations", ())
        if "oldSelf" not in entry["rule"] and not entry["rule"].startswith("size(self.metadata.name)")  # the server bounds it
    ]  # fmt: skip
    assert len(rules) > 80
    assert {path: wrong for path, node, rule in rules if (wrong := _unbounded(node, rule))} == {}


def test_status_fills_in_nothing() -> None:
    assert [path for path, node in NODES.items() if path.startswith(".status") and "default" in node] == []


def test_columns_show_fields_that_exist() -> None:
    known = {*NODES, ".metadata.creationTimestamp"}
    assert [path for _, _, path, _ in COLUMNS if path not in known] == []


def test_names() -> None:
    spec = crd()["spec"]
    assert spec["names"] == {
        "kind": "FineTuneJob",
        "listKind": "FineTuneJobList",
        "plural": "finetunejobs",
        "singular": "finetunejob",
        "shortNames": ["ftj"],
        "categories": ["ml"],
    }
    assert spec["versions"][0]["subresources"] == {"status": {}}


def test_the_reference_names_every_field() -> None:
    page = reference()
    fields = [path.rpartition(".")[2] for path in NODES if path.startswith((".spec.", ".status.")) and not path.endswith("[]")]
    assert [name for name in fields if f"| `{name}` |" not in page] == []


def test_generated_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().out


def test_a_stale_file_is_named_and_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / generate.CHART
    chart.mkdir(parents=True)
    for name in ("README.md", "values.yaml"):
        (chart / name).write_text((generate.ROOT / generate.CHART / name).read_text())
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "docs/reference/finetunejob.md is stale: run make generate" in capsys.readouterr().out
    assert not (tmp_path / "docs").exists()
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_samples_are_valid(path: Path) -> None:
    [document] = yaml.safe_load_all(path.read_text())
    job = FineTuneJob.model_validate(document)
    assert job.metadata.name == path.stem


def test_samples_name_the_sample_secret() -> None:
    [secret] = yaml.safe_load_all((generate.ROOT / "manifests/samples/storage-secret.yaml").read_text())
    used = {
        line.partition("credentials:")[2].split("#")[0].strip()
        for path in JOBS
        for line in path.read_text().splitlines()
        if "credentials:" in line
    }
    assert used == {secret["metadata"]["name"]}
