"""The table of values in the chart's README, generated from the comments in values.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

BEGIN, END = "<!-- values: generated -->", "<!-- /values -->"


def described(text: str) -> Iterator[tuple[str, str, Any]]:
    """Each documented value of a values.yaml: its path, what its `# --` comment says, and its default.

    A block's comment is the one line above it; indentation is two spaces a level, as in the chart.
    """
    values = yaml.safe_load(text)
    path: list[str] = []
    comment = ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            comment = bare.removeprefix("# -- ")
        elif bare and not bare.startswith(("#", "- ")):
            level = (len(line) - len(line.lstrip())) // 2
            path = [*path[:level], bare.partition(":")[0]]
            if comment:
                yield ".".join(path), comment, _at(values, path)
            comment = ""


def _at(values: Any, path: list[str]) -> Any:
    for name in path:
        values = values[name]
    return values


def readme(page: str, text: str) -> str:
    """The README with its table of values renewed between the two marks."""
    rows = [f"| `{path}` | `{json.dumps(default)}` | {comment} |" for path, comment, default in described(text)]
    table = "\n".join(["| Value | Default | Description |", "|---|---|---|", *rows])
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"
