"""What a process executes: the Python stacks of its threads, which it writes to a file upon SIGUSR1.

A rank registers `faulthandler` for that signal, which works even if the main thread is inside a library's native code.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

SIGNAL = signal.SIGUSR1
_WAIT_SECONDS = 1.0
_FRAME = re.compile(r'^\s+File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$')
_KERNEL_STATES = {"T": "is stopped by a signal", "t": "is stopped by a debugger", "D": "waits for a disk or file system"}
_LIBRARIES = re.compile(r"^.*/(?:site-packages|dist-packages|python3\.\d+)/")
_PACKAGE = "finetune_trainer"
_STARTERS = ("finetune_trainer/agent/guard.py", "finetune_trainer/agent/fork_server.py")  # one of them starts every rank
_COLLECTIVES = ("torch/distributed/", "deepspeed/comm/")


class Frame(NamedTuple):
    """A function call of a stack; `file` is relative to the folder of libraries."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({self.file}:{self.line})"


class Stack(NamedTuple):
    """What a process executes. Without a text, `state` says why it could not write one."""

    text: str = ""
    state: str = ""

    @property
    def frames(self) -> list[Frame]:
        """The calls of the main thread, the innermost first; faulthandler writes the main thread last."""
        return _threads(self.text)[-1]

    @property
    def is_waiting(self) -> bool:
        """Whether a thread waits for other ranks; in a backward pass it is not the main thread."""
        return any(frame.file.startswith(_COLLECTIVES) for thread in _threads(self.text) for frame in thread)

    @property
    def summary(self) -> str:
        """The innermost call, and the innermost one of the trainer if that is another; empty if nothing is known."""
        if not self.frames:
            return self.state
        inner = self.frames[0]
        own = next((frame for frame in self.frames if frame.file.startswith(_PACKAGE) and frame.file not in _STARTERS), inner)
        return f"is in {inner}" if own == inner else f"is in {inner}, called by {own}"


def dump(pid: int, file: Path) -> Stack:
    """Ask a process for its stacks; waits at most a second for them."""
    state = _kernel_state(pid)
    if state in _KERNEL_STATES:
        return Stack(state=f"{_KERNEL_STATES[state]} (process state {state})")
    if not _catches_signal(pid):
        return Stack()
    before = _size(file)
    os.kill(pid, SIGNAL)
    deadline = time.monotonic() + _WAIT_SECONDS
    size = before
    while time.monotonic() < deadline:
        time.sleep(0.05)
        previous, size = size, _size(file)
        if size > before and size == previous:
            break
    with file.open(errors="replace") as content:
        content.seek(before)
        return Stack(content.read())


def _threads(text: str) -> list[list[Frame]]:
    """The calls of each thread in a dump of faulthandler; one empty list without any."""
    threads: list[list[Frame]] = [[]]
    for line in text.splitlines():
        if match := _FRAME.match(line):
            threads[-1].append(Frame(_shorten(match["file"]), int(match["line"]), match["function"]))
        elif "most recent call first" in line:
            threads.append([])
    return threads


def _shorten(file: str) -> str:
    _, package, after = file.rpartition(f"/{_PACKAGE}/")
    return f"{_PACKAGE}/{after}" if package else _LIBRARIES.sub("", file)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _kernel_state(pid: int) -> str:
    """The state of the process in /proc, such as R, S, D or T; empty on systems without it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _catches_signal(pid: int) -> bool:
    """Whether the process handles the signal, which would kill it otherwise. A rank does once it has started."""
    if sys.platform != "linux":
        return False
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (SIGNAL - 1) & 1)
