"""Parameters of tests, of which `make test` runs some and `make slow` the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(quick: Iterable[str], cases: Iterable[str]) -> list[Any]:
    """The names of all cases as parameters, marked as slow unless they are among the quick ones."""
    kept, names = set(quick), list(cases)
    assert kept <= set(names), f"no such case: {kept - set(names)}"
    return [name if name in kept else slow(name) for name in names]


def slow(*values: Any) -> Any:
    """One parameter, or the values of several, marked as slow."""
    return pytest.param(*values, marks=pytest.mark.slow)
