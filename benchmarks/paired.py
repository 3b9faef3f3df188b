"""Paired benchmarks: two sides are measured in turn (peer, ours, peer, ours), so that other load affects both equally.

A benchmark measures both sides of each case in one run, prints minimum, median and maximum of every figure, compares the median
of the ratios ours / peer with its bound, and exits with code 1 if a bound is missed.
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

_SAMPLE_PREFIX = "sample: "
MAX_OTHER_LOAD = 0.2  # share of all cores that other processes may use
Sample = dict[str, Any]
"""The result of one run of one side: figures by name, and additional raw data."""


@dataclass(frozen=True)
class Figure:
    """A number that both sides report. `at_least` and `at_most` are optional bounds of the ratio ours / peer."""

    name: str
    text: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Limit:
    """A number that only our side reports; no sample may exceed `at_most`."""

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
        """The ratio ours / peer of each pair; empty if the peer's figure may be zero."""
        if any(sample[figure.name] == 0 for sample in self.peer):
            return []
        return [ours[figure.name] / peer[figure.name] for peer, ours in zip(self.peer, self.ours, strict=True)]

    def verdicts(self) -> list[tuple[str, bool]]:
        """A sentence for each bounded ratio and each limit, and whether it holds."""
        verdicts: list[tuple[str, bool]] = []
        for figure in self.figures:
            if figure.at_least is None and figure.at_most is None:
                continue
            ratio = statistics.median(self.ratios(figure))
            sentence = f"{figure.text}: ours / peer is {_number(ratio)}, must be"
            if figure.at_least is not None:
                verdicts.append((f"{sentence} at least {figure.at_least:g}", ratio >= figure.at_least))
            if figure.at_most is not None:
                verdicts.append((f"{sentence} at most {figure.at_most:g}", ratio <= figure.at_most))
        for limit in self.limits:
            most = max(sample[limit.name] for sample in self.ours)
            sentence = f"{limit.text}: {_number(most)} {limit.unit}, must be at most {limit.at_most:g} {limit.unit}"
            verdicts.append((sentence, most <= limit.at_most))
        return verdicts

    def table(self) -> str:
        """Format all figures as a Markdown table."""
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
    """One benchmark, from the command line to the exit code."""

    def __init__(self, title: str, parser: argparse.ArgumentParser, *packages: str, pairs: int = 3) -> None:
        """`packages` are the packages whose versions are reported with the results."""
        parser.add_argument("--pairs", type=int, default=pairs, help="number of measurements per side (default: %(default)s)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw results to this file")
        parser.add_argument(
            "--patience", type=float, default=60,
            help="maximum seconds to wait before each turn until the machine is idle (default: %(default)s)",
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
        """Measure both sides in turn; each call of a side's function is one complete measurement.

        `alone` means that a side consists of child processes only. A pair during which other processes use more than
        MAX_OTHER_LOAD of the cores is then measured again, at most as many times as there are pairs; the disturbed pair is kept
        in the raw results only.
        """
        case = Case(title, figures, limits)
        self._cases.append(case)
        while len(case.peer) < self.config.pairs:
            number = len(case.peer) + 1
            pair = [self._turn(f"{title}: pair {number}, {side}", case, run) for side, run in (("peer", peer), ("ours", ours))]
            if alone and any(turn["others"] > MAX_OTHER_LOAD for turn in pair) and len(case.disturbed) < self.config.pairs:
                print(f"{title}: pair {number} was disturbed and is measured again", flush=True)
                case.disturbed.append(pair)
                continue
            case.peer.append(pair[0])
            case.ours.append(pair[1])

    def _turn(self, label: str, case: Case, run: Callable[[], Sample]) -> Sample:
        wait_until_idle(self.config.patience)
        before = _ticks()
        sample = run()
        now = _ticks()
        whole = now.busy + now.idle - before.busy - before.idle
        # The processor time of children is known once they have exited, as those of all sides have by now.
        sample["others"] = (now.busy - before.busy - (now.children - before.children)) / max(whole, 1)
        reported: list[Figure | Limit] = [*case.figures, *case.limits]
        values = [f"{item.text} {_number(sample[item.name])} {item.unit}" for item in reported if item.name in sample]
        print(f"{label}: {', '.join(values)}", flush=True)
        return sample

    def finish(self) -> NoReturn:
        """Print the tables and the verdicts, write the raw results, and exit."""
        environment = describe_machine(self._packages)
        print(f"\n# {self.title}\n{', '.join(f'{name} {value}' for name, value in environment.items())}")
        for case in self._cases:
            print(f"\n## {case.title}\n\n{case.table()}\n")
            for sentence, holds in case.verdicts():
                print(f"{'PASS' if holds else 'MISS'}  {sentence}")
        self._write(environment)
        sys.exit(0 if all(holds for case in self._cases for _, holds in case.verdicts()) else 1)

    def _write(self, environment: dict[str, str]) -> None:
        if self.config.json is None:
            return
        raw = {
            "title": self.title,
            "date": self._started.isoformat(timespec="seconds"),
            "options": {name: value for name, value in vars(self.config).items() if name != "json"},
            "machine": environment,
            "cases": [asdict(case) | {"verdicts": case.verdicts()} for case in self._cases],
        }
        self.config.json.parent.mkdir(parents=True, exist_ok=True)
        self.config.json.write_text(json.dumps(raw, indent=1, default=str) + "\n")
        print(f"\nraw results: {self.config.json}")


def run_script(script: str, *arguments: object, environment: Mapping[str, str]) -> Sample:
    """Run a script of this directory as a separate process and return its sample; prints its output only if it fails."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    samples = [line for line in result.stdout.splitlines() if line.startswith(_SAMPLE_PREFIX)]
    if result.returncode or not samples:
        output = f"{result.stdout}\n{result.stderr}"[-8000:]
        sys.exit(f"{script} {' '.join(map(str, arguments))} exited with code {result.returncode}:\n{output}")
    sample: Sample = json.loads(samples[-1].removeprefix(_SAMPLE_PREFIX))
    return sample


def print_sample(sample: Sample) -> None:
    """Print a sample for `run_script`."""
    print(f"{_SAMPLE_PREFIX}{json.dumps(sample)}", flush=True)


def wait_until_idle(patience: float, window: float = 3.0) -> None:
    """Wait until the machine is idle, for at most `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _ticks()
        time.sleep(window)
        now = _ticks()
        if now.busy - before.busy <= MAX_OTHER_LOAD * (now.busy + now.idle - before.busy - before.idle):
            return


class _Ticks(NamedTuple):
    """Processor time of all cores since boot in seconds: busy, idle, and that of this process's exited children."""

    busy: float
    idle: float
    children: float


def _ticks() -> _Ticks:
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, idle, waiting, *_ = (int(word) / os.sysconf("SC_CLK_TCK") for word in first.split()[1:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Ticks(user + nice + system, idle + waiting, used.ru_utime + used.ru_stime)


def cpu_seconds(pid: int) -> float:
    """Read the processor time of a process, in seconds."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Find a port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def describe_machine(packages: Sequence[str]) -> dict[str, str]:
    """Describe the machine and the package versions that a result depends on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = {"cores": str(len(os.sched_getaffinity(0))), "memory": f"{memory:.0f} GiB", "python": platform.python_version()}
    return facts | {name: version(name) for name in packages}


def _row(text: str, side: str, values: Sequence[float]) -> str:
    numbers = (min(values), statistics.median(values), max(values))
    return f"| {text} | {side} | {' | '.join(_number(value) for value in numbers)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
