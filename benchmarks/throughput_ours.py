"""Our side of training_throughput.py: starts a rank as an agent does and reads its events; prints one JSON object."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from paired import Sample, cpu_seconds, free_port, print_sample

from finetune_trainer.protocol.events import Ended, Step, parse


class TimedStep(NamedTuple):
    """A step event, with the time of its arrival and the processor time of the rank until then."""

    moment: float
    cpu: float
    step: Step


def train(document: Path, folder: Path, work: Path) -> list[TimedStep]:
    """Run one training and return its steps."""
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
                steps.append(TimedStep(now, cpu_seconds(process.pid), event))
            elif isinstance(event, Ended) and event.outcome.reason != "Complete":
                sys.exit(f"the rank failed: {event.outcome.message}")
    process.wait()
    return steps


def summarize(steps: list[TimedStep], warm_up: int) -> Sample:
    """Tokens per second after the warm-up. Each event has the tokens since the previous event."""
    begin = next(index for index, timed in enumerate(steps) if timed.step.progress.step >= warm_up)
    counted = [timed.step for timed in steps[begin + 1 :]]
    tokens, seconds = sum(step.tokens for step in counted), steps[-1].moment - steps[begin].moment
    return {
        "tokens_per_second": tokens / seconds,
        "tokens_per_cpu_second": tokens / (steps[-1].cpu - steps[begin].cpu),
        "padding": sum(step.padding_ratio for step in counted) / len(counted),
        "tokens": tokens,
        "seconds": seconds,
        "step_ends": [timed.moment - steps[0].moment for timed in steps],
        "last_loss": steps[-1].step.progress.loss,
    }


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path, help="a TrainSpec")
    parser.add_argument("folder", type=Path, help="directory for prepared data, shared by all runs")
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--sampling", help="ignored: an option of the peer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as work:
        # Separate storage for each run: with the checkpoint of another run, training would already be finished.
        document = Path(work) / "document.json"
        document.write_text(options.document.read_text().replace(str(options.folder / "storage"), f"{work}/storage"))
        print_sample(summarize(train(document, options.folder, Path(work)), options.warm_up))


if __name__ == "__main__":
    main()
