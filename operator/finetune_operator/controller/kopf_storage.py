"""kopf without a memory in the objects.

kopf would compare every event with what it last stored in an annotation. Event and index handlers have no use for that, and
the copies it makes for it were 40% of the operator's processor time. Storages that store nothing also make sure that nothing
of kopf's is ever written to an object.
"""

from __future__ import annotations

from typing import Any

import kopf

NOTHING: Any = {}


class NoDifferences(kopf.DiffBaseStorage):
    """Every object looks as it did before."""

    def build(self, **_: Any) -> Any:
        """What is compared: nothing."""
        return NOTHING

    def fetch(self, **_: Any) -> Any:
        """What it is compared with: nothing."""
        return

    def store(self, **_: Any) -> None:
        """Keep nothing."""


class NoProgress(kopf.ProgressStorage):
    """No handler is ever half done."""

    def fetch(self, **_: Any) -> Any:
        """No record of a handler."""
        return

    def store(self, **_: Any) -> None:
        """Keep nothing."""

    def purge(self, **_: Any) -> None:
        """Nothing to remove."""

    def touch(self, **_: Any) -> None:
        """Nothing to wake an object with."""

    def clear(self, *, essence: Any, **_: Any) -> Any:
        """Nothing of kopf's is in there."""
        return essence
