"""What labels are called."""

from __future__ import annotations

from typing import Any


def name_of(label: Any) -> str:
    """A label as the model's configuration names it; 1 and True in JSON are as good as the string in CSV."""
    return str(label).lower() if isinstance(label, bool) else str(label)
