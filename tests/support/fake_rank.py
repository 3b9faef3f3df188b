"""A rank with a given behavior: it sends real events and imports only the standard library, so that tests start it quickly.

The document is {"RANK": [behavior of its first attempt, of the second, ...]}; the last behavior applies to all later attempts.
Other ranks have the behavior in the environment variable FAKE_RANK, or complete. Every attempt leaves a record in the cache
directory. A file there also tells all ranks about a stop of one, as a collective does for real ranks.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path

PROGRESS = {"totalSteps": 1000, "epoch": 0.5, "percent": 1, "loss": 2.5, "learningRate": 0.001}
EXIT_CODES = {"Complete": 0, "InvalidData": 3, "NonFiniteLoss": 5, "RendezvousFailed": 8, "Preempted": 10}


# Its stack looks as if torch waited for other ranks.
WAIT = """
def wait(condition, sleep):
    while not condition():
        sleep(0.02)
"""
exec(compile(WAIT, "/usr/lib/site-packages/torch/distributed/fake.py", "exec"), TORCH := {})


def hang() -> None:
    while True:
        time.sleep(60)


class FakeRank:
    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        for name in ("document", "job", "run-id", "master", "work-dir", "cache-dir", "credentials-dir", "stack-file"):
            parser.add_argument(f"--{name}")
        for name in ("rank", "world-size", "local-rank", "processes-per-node", "attempt", "telemetry-fd"):
            parser.add_argument(f"--{name}", type=int)
        self.options = parser.parse_args()
        faulthandler.register(signal.SIGUSR1, file=Path(self.options.stack_file).open("a"))  # noqa: SIM115  # it stays open
        self.shared = Path(self.options.cache_dir)
        self.attempt = len(list(self.shared.glob(f"attempt-{self.options.rank}-*")))
        record = vars(self.options) | {"pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}
        self.stop = self.shared / f"stop-{self.options.attempt}"
        signal.signal(signal.SIGTERM, lambda *_: self.stop.touch())
        draft = self.shared / f".draft-{self.options.rank}"
        draft.write_text(json.dumps(record))
        draft.rename(self.shared / f"attempt-{self.options.rank}-{self.attempt}")

    def send(self, event: str, **content: object) -> None:
        os.write(self.options.telemetry_fd, json.dumps({"event": event} | content).encode() + b"\n")

    def step(self, step: int) -> None:
        self.send("step_time", seconds=0.02, dataWaitSeconds=0.001)
        if self.options.rank == 0:
            progress = PROGRESS | {"step": step}
            self.send("step", progress=progress, gradientNorm=1.5, tokens=100, samples=2, paddingRatio=0.25)

    def end(self, reason: str, message: str = "") -> None:
        self.send("ended", outcome={"reason": reason, "message": message, "progress": {"step": 7}})
        sys.exit(EXIT_CODES[reason])

    def train(self, until: str) -> None:
        """Step until the file `until` exists, or any rank was asked to stop."""
        step = 100 * self.attempt
        while not (self.shared / until).exists():
            step += 1
            self.step(step)
            time.sleep(0.02)
            if self.stop.exists():
                self.end("Preempted", f"rank {self.options.rank} stored a checkpoint")

    def work(self, parts: int, seconds: float) -> None:
        """Give a sign of life after each part, which takes some seconds."""
        for _ in range(parts):
            time.sleep(seconds)
            self.send("beat")

    def join(self) -> None:
        """Wait silently until all ranks have come here."""
        self.send("alive", activity="Loading")
        (self.shared / f"joined-{self.options.rank}").touch()
        TORCH["wait"](lambda: len(list(self.shared.glob("joined-*"))) == self.options.world_size, time.sleep)

    def run(self) -> None:
        behaviors = json.loads(Path(self.options.document).read_text()).get(
            str(self.options.rank), [os.environ.get("FAKE_RANK", "complete")]
        )
        match behaviors[min(self.attempt, len(behaviors) - 1)].split(":"):
            case ["complete"]:
                self.step(1)
            case ["train"]:
                self.train("finish")
            case ["exit", code]:
                sys.exit(int(code))
            case ["kill", number]:
                os.kill(os.getpid(), int(number))
            case ["fail", reason, seconds]:
                time.sleep(float(seconds))
                self.end(reason, f"rank {self.options.rank} reports {reason}")
            case ["progress-and-crash"]:
                self.step(self.attempt + 1)
                time.sleep(0.3)
                sys.exit(1)
            case ["silent"]:
                self.step(1)
                hang()
            case ["micro-batches", count, seconds]:
                self.step(1)
                self.work(int(count), float(seconds))
                self.step(2)
            case ["join", seconds]:
                self.send("alive", activity="Preparing")
                self.work(int(float(seconds) / 0.1), 0.1)
                self.join()
                self.step(1)
            case ["silent-preparation"]:
                self.send("alive", activity="Preparing")
                hang()
            case ["save", seconds]:
                self.step(1)
                self.send("alive", activity="Saving")
                time.sleep(float(seconds))
            case ["ignore-sigterm"]:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                while True:
                    self.step(1)
                    time.sleep(0.05)
            case ["noise"]:
                os.write(self.options.telemetry_fd, b'not JSON\n{"event": "unknown"}\n\n')
                self.step(3)
            case ["late"]:
                self.send("ended", outcome={"reason": "Complete"})
                sys.exit(139)
            case other:
                raise ValueError(other)
        self.end("Complete")


if __name__ == "__main__":
    FakeRank().run()
