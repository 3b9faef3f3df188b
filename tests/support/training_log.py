"""Reads from the log of a job's first pod when each step was completed, and how a run recovers from a fault.

The log files are read on the nodes of the development cluster: they have the time of each line, grow although the kubelet is
stopped or the node is cut off, and an open file can be read to its end after its pod is gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tests.support.devcluster import faults

from finetune_operator.names import pod_names

_LINE = re.compile(r"(\S+) std(?:out|err) F (.*)")
_STEP = re.compile(r"\bINFO step (\d+)/\d+ ")
_RESUMED = re.compile(r"\bINFO resumed from step (\d+)\b")


class Entry(NamedTuple):
    """A completed step, or a resume from the checkpoint of a step; the time is in seconds since 1970."""

    time: float
    step: int
    is_resume: bool


def parse_line(line: str) -> Entry | None:
    """The entry of a line in the log format of the kubelet; None for any other line."""
    if not (parts := _LINE.match(line)):
        return None
    time, text = parts.groups()
    for pattern, is_resume in ((_STEP, False), (_RESUMED, True)):
        if found := pattern.search(text):
            # Nanoseconds are more than Python reads.
            seconds = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$", r"\1+00:00", time)).timestamp()
            return Entry(seconds, int(found[1]), is_resume)
    return None


@dataclass
class TrainingLog:
    """The entries in the logs of all pods that were pod 0 of a job, in the order of their times."""

    namespace: str
    job: str
    entries: list[Entry] = field(default_factory=list)
    _files: dict[Path, BinaryIO] = field(default_factory=dict)
    _rest: dict[Path, bytes] = field(default_factory=dict)

    def update(self) -> TrainingLog:
        """Read what was written since the last call."""
        for path in faults.container_logs(self.namespace, pod_names(self.job, 0)):
            if path not in self._files:
                self._files[path] = path.open("rb")
        new: list[Entry] = []
        for path, file in self._files.items():
            *lines, self._rest[path] = (self._rest.get(path, b"") + file.read()).split(b"\n")
            new += filter(None, (parse_line(line.decode(errors="replace")) for line in lines))
        self.entries = sorted(self.entries + new, key=lambda entry: entry.time)
        return self

    @property
    def highest_step(self) -> int:
        """The highest step that was completed; 0 before the first."""
        return max((entry.step for entry in self.entries if not entry.is_resume), default=0)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


class Recovery(NamedTuple):
    """What a fault cost: seconds from the fault to the next completed step, steps computed again, and restarts of all ranks."""

    seconds: float
    steps_lost: int
    restarts: int


def recovery(entries: Sequence[Entry], fault: float, *, restarts: int) -> Recovery | None:
    """What the fault at this time cost; None as long as the run has not recovered.

    It has recovered when a step was completed after the fault and after the number of `restarts` that the fault needs. More
    restarts are included in the result.
    """
    highest = max((entry.step for entry in entries if entry.time <= fault and not entry.is_resume), default=0)
    steps_lost = seen = 0
    recovered_at: float | None = None
    for entry in entries:
        if entry.time <= fault:
            continue
        if entry.is_resume:
            seen += 1
            steps_lost += max(0, highest - entry.step)
            highest = entry.step
            continue
        highest = max(highest, entry.step)
        if recovered_at is None and seen >= restarts:
            recovered_at = entry.time
    return None if recovered_at is None else Recovery(recovered_at - fault, steps_lost, seen)


def useful_seconds(entries: Sequence[Entry]) -> float:
    """The time of those steps whose result was kept, without those that were computed again after a resume.

    The first step after a resume counts as the median of all others, since its beginning is not in the log.
    """
    durations: dict[int, float | None] = {}
    previous: Entry | None = None
    for entry in entries:
        if not entry.is_resume:
            is_next = previous is not None and not previous.is_resume
            durations[entry.step] = entry.time - previous.time if previous is not None and is_next else None
        previous = entry
    known = sorted(seconds for seconds in durations.values() if seconds is not None)
    median = known[len(known) // 2] if known else 0.0
    return sum(median if seconds is None else seconds for seconds in durations.values())


def lost_steps(entries: Sequence[Entry]) -> int:
    """How many steps were computed more than once."""
    steps = [entry.step for entry in entries if not entry.is_resume]
    return len(steps) - len(set(steps))
