"""Two sides measured in turn, peer, ours, peer, ours, so that whatever else the machine does falls on both alike.

A benchmark measures both sides of each case in one run, prints minimum, median and maximum of every figure, judges the median
of the pairs' ratios ours / peer against what it must be, and exits 1 when one of them misses that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

_SAYS = "sample: "
DISTURBED = 0.2  # share of all cores that is used by others
Sample = dict[str, Any]
"""What one run of one side measured: figures by name, and more that is only kept as raw data."""


@dataclass(frozen=True)
class Figure:
    """A number that both sides have. `at_least` and `at_most` say what the ratio ours / peer must be, if anything."""

    name: str
    text: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Limit:
    """A number that only our side has, none of which may exceed `at_most`."""

    name: str
    text: str
    unit: str
    at_most: float


@dataclass
class Case:
    """All pairs of one comparison."""

    title: str
    figures: Sequence[Figure]
    limits: Sequence[Limit]
    peer: list[Sample] = field(default_factory=list)
    ours: list[Sample] = field(default_factory=list)
    disturbed: list[list[Sample]] = field(default_factory=list)

    def ratios(self, figure: Figure) -> list[float]:
        """Ours / peer, pair by pair; none of a figure that may be zero."""
        if any(sample[figure.name] == 0 for sample in self.peer):
            return []
        return [ours[figure.name] / peer[figure.name] for peer, ours in zip(self.peer, self.ours, strict=True)]

    def verdicts(self) -> list[tuple[str, bool]]:
        """A sentence for each ratio and limit that is demanded, and whether it holds."""
        judged = []
        for figure in self.figures:
            if figure.at_least is None and figure.at_most is None:
                continue
            ratio = statistics.median(self.ratios(figure))
            sentence = f"{figure.text}: ours / peer is {_number(ratio)}, must be"
            if figure.at_least is not None:
                judged.append((f"{sentence} at least {figure.at_least:g}", ratio >= figure.at_least))
            if figure.at_most is not None:
                judged.append((f"{sentence} at most {figure.at_most:g}", ratio <= figure.at_most))
        for limit in self.limits:
            most = max(sample[limit.name] for sample in self.ours)
            sentence = f"{limit.text}: {_number(most)} {limit.unit}, must be at most {limit.at_most:g} {limit.unit}"
            judged.append((sentence, most <= limit.at_most))
        return judged

    def table(self) -> str:
        """A Markdown table of all figures."""
        lines = ["| figure | side | min | median | max |", "|---|---|---|---|---|"]
        for figure in self.figures:
            lines += [
                _row(f"{figure.text}, {figure.unit}", "peer", [sample[figure.name] for sample in self.peer]),
                _row("", "ours", [sample[figure.name] for sample in self.ours]),
            ]
            if ratios := self.ratios(figure):
                lines.append(_row("", "**ours / peer**", ratios))
        for limit in self.limits:
            lines.append(_row(f"{limit.text}, {limit.unit}", "ours", [sample[limit.name] for sample in self.ours]))
        return "\n".join(lines)


class Benchmark:
    """Everything one benchmark measures, from the command line to the exit status."""

    def __init__(self, title: str, parser: argparse.ArgumentParser, *packages: str, pairs: int = 3) -> None:
        """`packages` are those whose versions the results depend on."""
        parser.add_argument("--pairs", type=int, default=pairs, help="how often each side is measured (default: %(default)s)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw results here")
        parser.add_argument(
            "--patience", type=float, default=60,
            help="seconds to wait before each turn, at most, for other work on this machine to end (default: %(default)s)",
        )  # fmt: skip
        self.config = parser.parse_args()
        self.title = title
        self._packages = packages
        self._cases: list[Case] = []
        self._started = datetime.now(UTC)

    def measure(
        self,
        title: str,
        peer: Callable[[], Sample],
        ours: Callable[[], Sample],
        figures: Sequence[Figure],
        limits: Sequence[Limit] = (),
        *,
        alone: bool = True,
    ) -> None:
        """Measure both sides in turn; a side's function is one whole measurement from nothing.

        `alone` says that a side is nothing but children of this process. Then a pair during which other processes have used
        the cores is measured again, as often as there are pairs, and kept in the raw results only.
        """
        case = Case(title, figures, limits)
        self._cases.append(case)
        while len(case.peer) < self.config.pairs:
            number = len(case.peer) + 1
            pair = [self._turn(f"{title}: pair {number}, {side}", case, run) for side, run in (("peer", peer), ("ours", ours))]
            if alone and any(turn["others"] > DISTURBED for turn in pair) and len(case.disturbed) < self.config.pairs:
                print(f"{title}: pair {number} was disturbed and is measured again", flush=True)
                case.disturbed.append(pair)
                continue
            case.peer.append(pair[0])
            case.ours.append(pair[1])

    def _turn(self, label: str, case: Case, run: Callable[[], Sample]) -> Sample:
        calm_down(self.config.patience)
        before = _ticks()
        sample = run()
        now = _ticks()
        whole = now.busy + now.idle - before.busy - before.idle
        # What children use is known when they have ended, as all sides have by now.
        sample["others"] = (now.busy - before.busy - (now.children - before.children)) / max(whole, 1)
        demanded: list[Figure | Limit] = [*case.figures, *case.limits]
        values = [f"{item.text} {_number(sample[item.name])} {item.unit}" for item in demanded if item.name in sample]
        print(f"{label}: {', '.join(values)}", flush=True)
        return sample

    def finish(self) -> NoReturn:
        """Print the tables and the verdicts, write the raw results, and exit."""
        surroundings = machine(self._packages)
        print(f"\n# {self.title}\n{', '.join(f'{name} {value}' for name, value in surroundings.items())}")
        for case in self._cases:
            print(f"\n## {case.title}\n\n{case.table()}\n")
            for sentence, holds in case.verdicts():
                print(f"{'PASS' if holds else 'MISS'}  {sentence}")
        self._write(surroundings)
        sys.exit(0 if all(holds for case in self._cases for _, holds in case.verdicts()) else 1)

    def _write(self, surroundings: dict[str, str]) -> None:
        if self.config.json is None:
            return
        raw = {
            "title": self.title,
            "date": self._started.isoformat(timespec="seconds"),
            "options": {name: value for name, value in vars(self.config).items() if name != "json"},
            "machine": surroundings,
            "cases": [asdict(case) | {"verdicts": case.verdicts()} for case in self._cases],
        }
        self.config.json.parent.mkdir(parents=True, exist_ok=True)
        self.config.json.write_text(json.dumps(raw, indent=1, default=str) + "\n")
        print(f"\nraw results: {self.config.json}")


def in_process(script: str, *arguments: object, environment: Mapping[str, str]) -> Sample:
    """What a script of this folder says when it runs as a process of its own; its log is shown only if it fails."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if line.startswith(_SAYS)]
    if done.returncode or not said:
        sys.exit(
            f"{script} {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"[-8000:]
        )
    sample: Sample = json.loads(said[-1].removeprefix(_SAYS))
    return sample


def say(sample: Sample) -> None:
    """Give a sample to `in_process`."""
    print(f"{_SAYS}{json.dumps(sample)}", flush=True)


def calm_down(patience: float, window: float = 3.0) -> None:
    """Wait for the machine to be idle, but no longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _ticks()
        time.sleep(window)
        now = _ticks()
        if now.busy - before.busy <= DISTURBED * (now.busy + now.idle - before.busy - before.idle):
            return


class _Ticks(NamedTuple):
    """Processor time since the start, seconds of all cores: used, idle, and used by finished children of this process."""

    busy: float
    idle: float
    children: float


def _ticks() -> _Ticks:
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, idle, waiting, *_ = (int(word) / os.sysconf("SC_CLK_TCK") for word in first.split()[1:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Ticks(user + nice + system, idle + waiting, used.ru_utime + used.ru_stime)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that no one listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def machine(packages: Sequence[str]) -> dict[str, str]:
    """What a result depends on beside the code."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    here = {"cores": str(len(os.sched_getaffinity(0))), "memory": f"{memory:.0f} GiB", "python": platform.python_version()}
    return here | {name: version(name) for name in packages}


def _row(text: str, side: str, values: Sequence[float]) -> str:
    numbers = (min(values), statistics.median(values), max(values))
    return f"| {text} | {side} | {' | '.join(_number(value) for value in numbers)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
