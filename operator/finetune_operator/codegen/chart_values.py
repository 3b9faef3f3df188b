"""The table of values in the chart's README, generated from the comments in values.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

COMMENT = "# -- "
BEGIN, END = "<!-- values: generated -->", "<!-- /values -->"


class DocumentedValue(NamedTuple):
    """One value of values.yaml with its comment."""

    path: str
    description: str
    default: Any


def parse_values(text: str) -> Iterator[DocumentedValue]:
    """Yield each value of a values.yaml that has a `# --` comment in the line above it.

    The file is indented by two spaces per level.
    """
    values = yaml.safe_load(text)
    path: list[str] = []
    description = ""
    for line in text.splitlines():
        content = line.strip()
        if content.startswith(COMMENT):
            description = content.removeprefix(COMMENT)
        elif content and not content.startswith(("#", "- ")):
            level = (len(line) - len(line.lstrip())) // 2
            path = [*path[:level], content.partition(":")[0]]
            if description:
                yield DocumentedValue(".".join(path), description, _value_at(values, path))
            description = ""


def _value_at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def update_values_table(readme: str, values: str) -> str:
    """Return the README with the table between its two marks regenerated from the text of values.yaml."""
    lines = ["| Value | Default | Description |", "|---|---|---|"]
    for value in parse_values(values):
        lines.append(f"| `{value.path}` | `{json.dumps(value.default)}` | {value.description} |")
    table = "\n".join(lines)
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
