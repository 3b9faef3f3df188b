"""Signs of life of a rank: code that makes progress calls `beat`, whatever phase it runs in, much as it would write to a log.

A rank relays its heartbeats to its agent; in other processes they have no effect. There is no timer: a rank that makes
no progress is silent. Two cases need more than `beat`:

- `while_busy`: a library works for long without a callback.
- `BackgroundWork`: a thread works while training continues; its heartbeats count only for a rank that waits for it.
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MIN_SECONDS = 0.2  # between two heartbeats; those in between are dropped
BUSY_SECONDS = 1.0  # between two looks at the work of the process
MIN_BUSY_SHARE = 0.1  # of a core, for a process to count as busy
MIN_BUSY_BYTES = 1 << 20  # read or written in that time, for a process to count as busy
_IO_COUNTERS = Path("/proc/self/io")

Listener = Callable[[], None]
_listeners: list[Listener] = []
_last_beat = float("-inf")
_thread = threading.local()


@contextlib.contextmanager
def relayed_to(listener: Listener) -> Iterator[None]:
    """Within this context the heartbeats of this process go to `listener`, and to those of the contexts around it.

    The first one is never dropped, even if there was another heartbeat just before the context.
    """
    global _last_beat
    _listeners.append(listener)
    _last_beat = float("-inf")
    try:
        yield
    finally:
        _listeners.remove(listener)


def beat() -> None:
    """Report progress; cheap enough for every row, micro-batch or part of a file."""
    global _last_beat
    background: BackgroundWork | None = getattr(_thread, "work", None)
    if background is not None:
        background.beats += 1
        return
    now = time.monotonic()
    if now - _last_beat >= MIN_SECONDS and _listeners:
        _last_beat = now
        for listener in _listeners:
            listener()


class BackgroundWork:
    """Work of a background thread. Its heartbeats say nothing about training, so they count only within `wait`."""

    def __init__(self) -> None:
        self.beats = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within this context the current thread does the work."""
        _thread.work = self
        try:
            yield
        finally:
            _thread.work = None

    def wait(self, done: threading.Event) -> None:
        """Wait until the work is done, passing its heartbeats on."""
        seen = self.beats
        while not done.wait(MIN_SECONDS):
            if self.beats != seen:
                seen = self.beats
                beat()


def wait_bounded(done: threading.Event, seconds: float) -> None:
    """Wait at most this long. A wait that ends by itself hides no hang, so it counts as progress."""
    deadline = time.monotonic() + seconds
    while not done.wait(max(0.0, min(MIN_SECONDS, deadline - time.monotonic()))) and time.monotonic() < deadline:
        beat()


@contextlib.contextmanager
def while_busy() -> Iterator[None]:
    """Within this context heartbeats follow from the work of the process: processor time, and bytes read and written.

    For calls of libraries that make no progress visible. A process that is blocked does neither and stays silent.
    """
    done = threading.Event()
    background: BackgroundWork | None = getattr(_thread, "work", None)

    def watch() -> None:
        _thread.work = background
        before = _work_done()
        while not done.wait(BUSY_SECONDS):
            after = _work_done()
            if after[0] - before[0] >= MIN_BUSY_SHARE * BUSY_SECONDS or after[1] - before[1] >= MIN_BUSY_BYTES:
                beat()
            before = after

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _work_done() -> tuple[float, int]:
    """Seconds of processor time, and bytes read and written, of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    moved = 0
    with contextlib.suppress(OSError):
        counters = dict(line.split(": ") for line in _IO_COUNTERS.read_text().splitlines())
        moved = int(counters["rchar"]) + int(counters["wchar"])
    return usage.ru_utime + usage.ru_stime, moved
