"""The interface of a detector of personal data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OnMatch = Callable[[str], None]


@dataclass(frozen=True)
class Detector:
    """One way to find personal data."""

    identity: Any
    """A JSON value that changes when the detector may find something else."""
    replace: Callable[[str, OnMatch], str]
    """Returns a text with [KIND] in place of personal data, and calls the second argument with the kind of each match."""

    def find(self, text: str) -> Counter[str]:
        """The number of matches of each kind in the text."""
        counts: Counter[str] = Counter()
        self.replace(text, lambda kind: counts.update([kind]))
        return counts

    def scrub(self, text: str) -> str:
        """The text with placeholders such as [EMAIL] and [PHONE] in place of personal data."""
        return self.replace(text, lambda kind: None)
