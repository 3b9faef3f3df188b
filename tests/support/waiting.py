"""Waits for what other processes do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

TIMEOUT_SECONDS = 30.0

Value = TypeVar("Value")


def wait_for(
    read: Callable[[], Value | None], description: str, seconds: float = TIMEOUT_SECONDS, *, pause: float = 0.02
) -> Value:
    """Call `read` until it returns a true value, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := read()):
        assert time.monotonic() < deadline, f"{description}: not within {seconds:.0f} s"
        time.sleep(pause)
    return value


async def reached(condition: Callable[[], object], seconds: float = TIMEOUT_SECONDS) -> None:
    """Let other tasks run until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is not true within {seconds:.0f} s"
        await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], object], description: str, *, seconds: float = 60) -> float:
    """Wait for a condition that needs requests to a cluster; returns the seconds that it took."""
    started = time.monotonic()
    wait_for(condition, description, seconds, pause=0.3)
    return time.monotonic() - started
