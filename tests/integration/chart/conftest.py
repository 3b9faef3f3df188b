"""Helm and promtool, either from PATH or as built by `make cluster-build`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.devcluster import gobuild

from finetune_operator.codegen.generate import CHART, ROOT

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


def find_command(name: str) -> Path:
    return Path(shutil.which(name) or gobuild.binary(name))


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm of the development cluster: the layout of install.yaml depends on its version."""
    return gobuild.binary("helm")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' command for checking rules."""
    return find_command("promtool")


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """A function that renders the chart with `--set` values and returns its objects by kind and name.

    It raises AssertionError with Helm's message if Helm fails.
    """

    def render_chart(*values: str, namespace: str = "finetune-system") -> dict[tuple[str, str], dict[str, Any]]:
        command = [helm, "template", "finetune-operator", ROOT / CHART, f"--namespace={namespace}", *set_flags(values)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        objects = [document for document in yaml.safe_load_all(result.stdout) if document]
        return {(item["kind"], item["metadata"]["name"]): item for item in objects}

    return render_chart


def set_flags(values: Iterable[str]) -> list[str]:
    """The flags of helm that set chart values."""
    return [f"--set={value}" for value in values]
