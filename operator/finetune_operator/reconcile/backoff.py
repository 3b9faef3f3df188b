"""Growing pauses with jitter. The jitter follows from a key instead of a random number, because policies are pure."""

from __future__ import annotations

import hashlib
from datetime import timedelta

MAX_DOUBLINGS = 32  # keeps the pause finite before it is capped


def jittered(seconds: float, key: str) -> timedelta:
    """Between half and one and a half times the seconds, always the same for a key."""
    digest = hashlib.sha256(key.encode()).digest()
    return timedelta(seconds=seconds * (0.5 + int.from_bytes(digest[:8]) / 2**64))


def doubled(initial: float, maximum: float, attempt: int) -> float:
    """The pause in seconds after attempt 1, 2, 3 ...: `initial`, then twice as long each time, at most `maximum`."""
    return min(initial * 2.0 ** min(attempt - 1, MAX_DOUBLINGS), maximum)
