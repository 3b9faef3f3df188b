"""A token bucket: permits a burst of operations, then one operation per interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Holds up to `capacity` tokens and regains one every `interval` seconds; all times are in seconds of one clock."""

    capacity: float
    interval: float
    _tokens: float = -1.0  # full at first
    _updated: float = 0.0

    def take(self, now: float) -> float:
        """Take a token. Returns 0, or without taking one, the seconds until a token is available."""
        if self._tokens < 0:
            self._tokens, self._updated = self.capacity, now
        self._tokens = min(self.capacity, self._tokens + (now - self._updated) / self.interval)
        self._updated = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) * self.interval
