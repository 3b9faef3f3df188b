"""The real commands that the chart is tested with: those on PATH, else those `make cluster-build` compiled."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.devcluster import gobuild

from finetune_operator.codegen.generate import CHART, ROOT

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


def _command(name: str) -> Path:
    return Path(shutil.which(name) or gobuild.binary(name))


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm of the development cluster, which decides how install.yaml is laid out."""
    return gobuild.binary("helm")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own judge of rules."""
    return _command("promtool")


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """Renders the chart with `--set` values: objects by kind and name. Raises AssertionError with Helm's words."""

    def rendered(*values: str, namespace: str = "finetune-system") -> dict[tuple[str, str], dict[str, Any]]:
        sets = [word for value in values for word in ("--set", value)]
        done = subprocess.run(
            [helm, "template", "finetune-operator", ROOT / CHART, f"--namespace={namespace}", *sets],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        objects = [document for document in yaml.safe_load_all(done.stdout) if document]
        return {(item["kind"], item["metadata"]["name"]): item for item in objects}

    return rendered
