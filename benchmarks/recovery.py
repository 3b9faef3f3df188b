"""Time from the kill of a rank to the next finished step: ours compared with torchrun.

Two ranks on this machine train a small Llama with DeepSpeed ZeRO-2 on the CPU and store checkpoints in a folder. One rank gets
SIGKILL, and the time until the first step after the restart counts; this is repeated --kills times for each side. torchrun
starts a script of this directory with --max-restarts, which builds the same model with the same configuration and loads
DeepSpeed's own checkpoint; it makes up its data, while ours reads the prepared data and verifies the checkpoint. Our ranks are
killed when their agent has its spare process ready, as it has shortly after the start of a run.

The model is small so that the time to load a checkpoint, which grows with the model and is the same for both, does not matter.

    .venv/bin/python benchmarks/recovery.py [--kills 5] [--pairs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from paired import Benchmark, Figure, Sample, free_port

from finetune_trainer.config import TrainSpec
from finetune_trainer.training.engine import deepspeed_config

FIGURES = (Figure("seconds", "rank killed to next step", "s", at_most=0.5),)
RANKS, ROWS, LENGTH, SAVE_EVERY = 2, 4, 64, 5
STEPS_BETWEEN_KILLS = 7  # more than between two checkpoints
STEP_SECONDS = 0.1
WAIT_SECONDS = 900.0
MODEL = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": LENGTH,
}  # fmt: skip
ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
STARTED = re.compile(r"starting \d+ ranks|rank 0 started")
FINISHED = re.compile(r"step \d+/")
AGENT = Path(__file__).parents[1] / "tests/support/agent_with_eager_spare.py"


class Job:
    """A running job, followed by its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    def lines(self) -> list[str]:
        """All lines of the log so far."""
        return self._log.read_text(errors="replace").splitlines()

    def wait_for(self, is_reached: Any, description: str) -> None:
        """Wait until the function is true for the lines of the log."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_reached(self.lines()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"no {description}:\n{self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.01)

    def recovery_seconds(self, victim: int) -> float:
        """Kill a process and wait for the first step after the next start."""
        starts = sum(bool(STARTED.search(line)) for line in self.lines())
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        self.wait_for(lambda lines: steps_since_start(lines, starts + 1) >= 1, "step after the restart")
        return time.monotonic() - killed_at


def steps_since_start(lines: list[str], number: int) -> int:
    """Finished steps since the start with this number, counted from 1; 0 before that start."""
    starts = [index for index, line in enumerate(lines) if STARTED.search(line)]
    return sum(bool(FINISHED.search(line)) for line in lines[starts[number - 1] :]) if len(starts) >= number else 0


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[Job]:
    """Start a job and end it with all its processes."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT, start_new_session=True
        )
    try:
        yield Job(process, log)
    finally:
        # Both end their ranks, which have sessions of their own, when they are asked to; a kill would leave them running, and
        # their processor time would count as that of others.
        ranks = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.kill()


def descendants(pid: int, text: str) -> list[int]:
    """The child processes, in the order of their start, whose command line has this text."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if text in Path(f"/proc/{child}/cmdline").read_text()]


def document(folder: Path) -> dict[str, Any]:
    """The document that our side trains."""
    words = ["red", "green", "blue", "cat", "dog", "bird", "sees", "eats", "likes", "here", "there"]
    lines = [" ".join(words[(i * k + k) % len(words)] for k in range(20 + i % 9)) for i in range(500)]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return {
        "model": {"initialization": "Scratch", "config": MODEL, "tokenizer": {"train": {"vocabSize": 300}}},
        "data": {"train": [{"source": f"file://{folder}/train.jsonl"}], "maxLength": LENGTH},
        "training": {"maxSteps": 1_000_000, "batchSize": RANKS * ROWS, "microBatchSize": ROWS, "logEverySteps": 1},
        "deepspeed": {"zeroStage": 2},
        "checkpoint": {"storage": f"file://{folder}/storage", "everySteps": SAVE_EVERY},
    }


def measure(job: Job, kills: int, processes: Any, is_ready: Any) -> Sample:
    """Kill the last rank again and again, each time after enough steps."""
    seconds = []
    for number in range(1, kills + 1):
        job.wait_for(lambda lines, n=number: steps_since_start(lines, n) >= STEPS_BETWEEN_KILLS and is_ready(lines), "steps")
        seconds.append(job.recovery_seconds(processes()[RANKS - 1]))
    return {"seconds": statistics.median(seconds), "kills": seconds}


def peer(options: argparse.Namespace) -> Sample:
    """Measure torchrun."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = TrainSpec.model_validate(document(folder))
        config = {
            "model": MODEL, "rows": ROWS, "length": LENGTH,
            "deepspeed": deepspeed_config(spec.training, spec.deepspeed, RANKS, "Float32"),
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), "--max-restarts", "1000",
            "--monitor-interval", "0.1", "--standalone", str(Path(__file__).with_name("recovery_peer.py")),
            "--config", str(folder / "config.json"), "--folder", str(folder / "storage"), "--save-every", str(SAVE_EVERY),
            "--step-seconds", str(STEP_SECONDS), "--port", str(free_port()),
        ]  # fmt: skip
        with running(command, folder) as job:
            return measure(job, options.kills, lambda: descendants(job.process.pid, "recovery_peer.py"), lambda _: True)


def ours(options: argparse.Namespace) -> Sample:
    """Measure our agent."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.json").write_text(json.dumps(document(folder)))
        command = [
            sys.executable, "-P", str(AGENT), "--document", str(folder / "train.json"), "--job", "benchmarks/recovery",
            "--node-rank", "0", "--nodes", "1", "--processes-per-node", str(RANKS), "--rendezvous", f"127.0.0.1:{free_port()}",
            "--work-dir", str(folder / "work"), "--http-port", "0",
        ]  # fmt: skip

        def ranks() -> list[int]:
            started = descendants(job.process.pid, "finetune_trainer.training")
            server = [pid for pid in started if "fork_server" in Path(f"/proc/{pid}/cmdline").read_text()]
            # Forked ranks have the command line of the spare, which was started before them.
            return [pid for pid in started if pid not in server] or server[1:]

        def has_spare(lines: list[str]) -> bool:
            return any("a spare process has imported" in line for line in lines)

        with running(command, folder) as job:
            sample = measure(job, options.kills, ranks, has_spare)
            forked = sum("is forked from the spare" in line for line in job.lines())
            if forked != RANKS * options.kills:
                sys.exit(f"{forked} ranks were forked from the spare, not {RANKS * options.kills}")
            return sample


def main() -> None:
    """Measure both sides and check the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="kills per measurement (default: %(default)s)")
    benchmark = Benchmark("Recovery of a killed rank", parser, "torch", "deepspeed", "transformers")
    options = benchmark.config
    benchmark.measure(f"{RANKS} ranks, ZeRO-2, against torchrun", partial(peer, options), partial(ours, options), FIGURES)
    benchmark.finish()


if __name__ == "__main__":
    main()
