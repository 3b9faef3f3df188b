"""Our side of training_throughput.py: starts a rank as an agent does, and reads what it tells; prints one JSON object."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from paired import Sample, cpu_seconds, free_port, say

from finetune_trainer.protocol.events import Ended, Step, parse


class Told(NamedTuple):
    """A step, when it was told, and the processor time that the rank had used by then."""

    moment: float
    cpu: float
    step: Step


def train(document: Path, folder: Path, work: Path) -> list[Told]:
    """All steps of one run."""
    reading, writing = os.pipe()
    arguments = {
        "document": document, "job": "bench/ours", "rank": 0, "world-size": 1, "local-rank": 0, "processes-per-node": 1,
        "master": f"127.0.0.1:{free_port()}", "attempt": "bench", "work-dir": work, "cache-dir": folder / "cache",
        "telemetry-fd": writing,
    }  # fmt: skip
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen([sys.executable, "-m", "finetune_trainer.training", *words], pass_fds=(writing,))
    os.close(writing)
    steps = []
    with os.fdopen(reading) as pipe:
        for line in pipe:
            now, event = time.monotonic(), parse(line)
            if isinstance(event, Step):
                steps.append(Told(now, cpu_seconds(process.pid), event))
            elif isinstance(event, Ended) and event.outcome.reason != "Complete":
                sys.exit(f"the rank ended: {event.outcome.message}")
    process.wait()
    return steps


def measured(steps: list[Told], warm_up: int) -> Sample:
    """Tokens a second after the warm-up. Each event counts what was learnt since the one before."""
    begin = next(index for index, told in enumerate(steps) if told.step.progress.step >= warm_up)
    counted = [told.step for told in steps[begin + 1 :]]
    tokens, seconds = sum(step.tokens for step in counted), steps[-1].moment - steps[begin].moment
    return {
        "tokens_per_second": tokens / seconds,
        "tokens_per_cpu_second": tokens / (steps[-1].cpu - steps[begin].cpu),
        "padding": sum(step.padding_ratio for step in counted) / len(counted),
        "tokens": tokens,
        "seconds": seconds,
        "step_ends": [told.moment - steps[0].moment for told in steps],
        "last_loss": steps[-1].step.progress.loss,
    }


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path, help="a TrainSpec")
    parser.add_argument("folder", type=Path, help="where prepared data is kept between runs")
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--sampling", help="the peer's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as work:
        # A storage of its own: a run that found another's checkpoint would have nothing left to do.
        document = Path(work) / "document.json"
        document.write_text(options.document.read_text().replace(str(options.folder / "storage"), f"{work}/storage"))
        say(measured(train(document, options.folder, Path(work)), options.warm_up))


if __name__ == "__main__":
    main()
