"""kopf storages that store nothing, so that kopf never writes to an object.

kopf compares every event with the state of the object that it last stored in an annotation. Event and index handlers do not
use the result, and the copies that kopf makes for it took 40% of the operator's CPU time.
"""

from __future__ import annotations

from typing import Any

import kopf

EMPTY: Any = {}


class NoDiffBaseStorage(kopf.DiffBaseStorage):
    """Stores no last-seen state: the current and the previous state of every object are empty."""

    def build(self, **_: Any) -> Any:
        """The current state, for the comparison."""
        return EMPTY

    def fetch(self, **_: Any) -> Any:
        """The previous state, for the comparison."""
        return

    def store(self, **_: Any) -> None:
        """Store nothing."""


class NoProgressStorage(kopf.ProgressStorage):
    """Stores no handler progress."""

    def fetch(self, **_: Any) -> Any:
        """The progress of a handler: none."""
        return

    def store(self, **_: Any) -> None:
        """Store nothing."""

    def purge(self, **_: Any) -> None:
        """Remove nothing."""

    def touch(self, **_: Any) -> None:
        """Trigger no event."""

    def clear(self, *, essence: Any, **_: Any) -> Any:
        """The object's state without handler progress, which it never contains."""
        return essence
