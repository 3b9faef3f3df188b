"""Documents, paths and metrics that the documentation shows are real."""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.registry import Collector
from tests.support.markdown_pages import PAGES, ROOT, blocks

from finetune_operator.api import FineTuneJob
from finetune_operator.cli.main import build_parser
from finetune_operator.controller.informer_cache import InformerCache
from finetune_operator.controller.metrics import Metrics as OperatorMetrics
from finetune_trainer.agent.metrics import Metrics as TrainerMetrics

# A fragment (a block with nothing but `spec`) must be valid when it is laid over this document.
BASE: dict[str, Any] = {
    "apiVersion": "finetune-operator.io/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "fragment"},
    "spec": {
        "model": {"source": "hf://Qwen/Qwen2.5-0.5B"},
        "data": {"train": [{"source": "s3://my-bucket/articles/*.jsonl", "credentials": "storage"}]},
        "training": {"batchSize": 64, "microBatchSize": 8},
        "checkpoint": {"storage": "s3://my-bucket/fragment", "credentials": "storage"},
    },
}
REPOSITORY_PATH = re.compile(r"`((?:operator|trainer|tests|manifests|charts|examples|benchmarks|docs)/[\w./-]+)`")


def overlay(base: dict[str, Any], fragment: dict[str, Any]) -> dict[str, Any]:
    """`base` with the fragment's values, mappings merged."""
    merged = copy.deepcopy(base)
    for key, value in fragment.items():
        both_are_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = overlay(merged[key], value) if both_are_mappings else value
    return merged


def yaml_documents() -> Iterator[Any]:
    """Each FineTuneJob, or fragment of one, in the pages."""
    for page in PAGES:
        for block in blocks(page):
            if block.language != "yaml":
                continue
            document = yaml.safe_load(block.text)
            name = f"{page.relative_to(ROOT)}:{block.line}"
            if document.get("kind") == "FineTuneJob":
                yield pytest.param(document, id=name)
            elif list(document) == ["spec"]:
                yield pytest.param(overlay(BASE, document), id=name)


@pytest.mark.parametrize("document", list(yaml_documents()))
def test_document_is_valid(document: dict[str, Any]) -> None:
    FineTuneJob.model_validate(document)


def test_every_objective_has_a_page() -> None:
    from finetune_trainer.config.objectives import CONFIGS, module_of

    folder = ROOT / "docs/guides/objectives"
    index = (folder / "index.md").read_text()
    for name in CONFIGS:
        page = f"{module_of(name).replace('_', '-')}.md"
        assert (folder / page).is_file(), name
        assert f"[{name}]({page})" in index


def test_named_files_exist() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {match[1]}"
        for page in PAGES
        for match in REPOSITORY_PATH.finditer(page.read_text())
        if not (ROOT / match[1]).exists()
    ]
    assert missing == []


def test_links_of_pages_outside_the_site_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "charts/finetune-operator/README.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def metric_names(registry: Collector) -> set[str]:
    """The names of all metrics, counters with their suffix."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()
    }  # fmt: skip


def test_every_metric_is_listed() -> None:
    operator = OperatorMetrics()
    operator.watch(InformerCache(), lambda: 0.0)
    page = Path(ROOT / "docs/reference/metrics.md").read_text()
    names = metric_names(operator.registry) | metric_names(TrainerMetrics("namespace", "job").registry)
    assert len(names) > 25
    assert sorted(name for name in names if not re.search(rf"`{name}[`{{]", page)) == []


def test_every_command_and_option_is_listed() -> None:
    page = (ROOT / "docs/reference/command-line.md").read_text()
    [subparsers] = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert len(subparsers.choices) == 8
    for name, parser in subparsers.choices.items():
        assert f"| `finetune {name}" in page
        for action in parser._actions:
            if action.option_strings and action.help not in (argparse.SUPPRESS, None) and action.dest != "help":
                option = max(action.option_strings, key=len)
                assert re.search(rf"`(-n|{option})\b", page), f"{name} {option}"


def code_lines(text: str) -> list[str]:
    """The lines of a text without blank ones, which formatting may add."""
    return [line for line in text.splitlines() if line.strip()]


def test_recipes_show_code_that_is_tested() -> None:
    tested = [code_lines(file.read_text()) for file in (ROOT / "tests/integration/trainer").rglob("test_extension.py")]
    titled = [block for block in blocks(ROOT / "docs/contributing/recipes.md") if block.language == "python" and block.title]
    assert len(titled) == 5
    for block in titled:
        lines = code_lines(block.text)
        found = any(lines == file[start : start + len(lines)] for file in tested for start in range(len(file)))
        assert found, f"{block.title}: no test_extension.py has this code"


def test_diffs_of_recipes_apply_to_the_code() -> None:
    """Every line that a diff keeps, removes or names as its place is in the file that the diff changes."""
    stale = []
    for block in blocks(ROOT / "docs/contributing/recipes.md"):
        if block.language != "diff":
            continue
        code: str | None = None
        for line in block.text.splitlines():
            if re.fullmatch(r"# [\w./-]+/[\w.-]+", line):
                file = ROOT / line[2:]
                code = file.read_text() if file.exists() else None  # the diff adds the file
            elif code is not None and line.strip() and not line.startswith("+"):
                shown = line.removeprefix("@@").strip() if line.startswith("@@") else line[1:]
                if shown not in code:
                    stale.append(f"line {block.line}: {line}")
    assert stale == []
