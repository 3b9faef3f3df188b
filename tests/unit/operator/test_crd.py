"""The generated definition is structural, bounded where rules look, and fresh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.api import FineTuneJob, generate
from finetune_operator.api.crd import COLUMNS, crd, schema
from finetune_operator.api.reference import reference
from finetune_trainer.config.objectives import OPTIONS

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
        (".spec.objective.type", {"enum": list(OPTIONS), "default": "CausalLM"}),
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
    assert "docs/reference.md is stale: run make generate" in capsys.readouterr().out
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
