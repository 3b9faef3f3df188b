"""The report as JSON, which scripts read."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.markdown_pages import ROOT
from tests.support.previews import preview

from finetune_trainer.preview.report import SCHEMA_VERSION, DataPreview, SampledSource

PAGE = (ROOT / "docs/how-to/inspect-data.md").read_text()


def field_names(schema: dict[str, Any]) -> set[str]:
    """The names of all fields of the report, at every depth."""
    names = set(schema["properties"])
    for definition in schema["$defs"].values():
        names |= set(definition.get("properties", {}))
    return names


def test_every_field_is_documented() -> None:
    names = field_names(DataPreview.model_json_schema(by_alias=True))
    assert len(names) > 60
    inside_lists = {"shortest", "median", "p95", "longest", "width", "height", "png"}
    assert sorted(name for name in names - inside_lists if not re.search(rf"`{name}(\[\])?`", PAGE)) == []


def test_fields_keep_their_names() -> None:
    document = preview().document()
    assert document["schemaVersion"] == SCHEMA_VERSION == 1
    assert document["sampled"] == [{"field": "data.train[0]", "rows": 2000, "total": 10_000}]
    assert document["train"]["histogram"][0] == {"shortest": 4, "longest": 513, "examples": 1500}
    assert document["findings"][0]["side"] == "train"
    assert document["shown"][0]["blocks"][1]["segments"] == [
        {"text": "[MASK]", "tokens": [6], "trained": True, "special": True, "target": "sky", "targetTokens": []}
    ]
    assert DataPreview.model_validate(document) == preview()


@pytest.mark.parametrize(
    ("sampled", "coverage"),
    [
        ([], "all rows"),
        ([SampledSource(field="data.train[0]", rows=2000)], "the first 2,000 rows"),
    ],
)
def test_says_which_rows_the_numbers_are_about(sampled: list[SampledSource], coverage: str) -> None:
    assert preview(sampled=sampled).coverage == coverage


def test_a_model_card_shows_no_histogram() -> None:
    card = preview().card()
    assert card.keys() == {"sources", "train", "findings"}
    assert "histogram" not in card["train"]
