"""A rank that does as it is told: it speaks the pipe's protocol and imports nothing heavy, so that tests start it quickly.

The document is {"RANK": [behaviour of its first life, of the second, ...]}, the last one for all later lives; ranks that are
not named do as the environment's FAKE_RANK says, or complete. Ranks leave notes in the cache directory, by which they also
learn of a stop elsewhere, as a real one does by a collective.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

PROGRESS = {"totalSteps": 1000, "epoch": 0.5, "percent": 1, "loss": 2.5, "learningRate": 0.001}
EXIT_CODES = {"Complete": 0, "InvalidData": 3, "NonFiniteLoss": 5, "RendezvousFailed": 8, "Preempted": 10}


class FakeRank:
    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        for name in ("document", "job", "master", "work-dir", "cache-dir", "credentials-dir"):
            parser.add_argument(f"--{name}")
        for name in ("rank", "world-size", "local-rank", "processes-per-node", "attempt", "telemetry-fd"):
            parser.add_argument(f"--{name}", type=int)
        self.given = parser.parse_args()
        self.shared = Path(self.given.cache_dir)
        self.life = len(list(self.shared.glob(f"life-{self.given.rank}-*")))
        note = vars(self.given) | {"pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}
        self.stop = self.shared / f"stop-{self.given.attempt}"
        signal.signal(signal.SIGTERM, lambda *_: self.stop.touch())
        draft = self.shared / f".draft-{self.given.rank}"
        draft.write_text(json.dumps(note))
        draft.rename(self.shared / f"life-{self.given.rank}-{self.life}")

    def say(self, event: str, **content: object) -> None:
        os.write(self.given.telemetry_fd, json.dumps({"event": event} | content).encode() + b"\n")

    def step(self, step: int) -> None:
        self.say("step_time", seconds=0.02, dataWaitSeconds=0.001)
        if self.given.rank == 0:
            progress = PROGRESS | {"step": step}
            self.say("step", progress=progress, gradientNorm=1.5, tokens=100, samples=2, paddingRatio=0.25)

    def end(self, reason: str, message: str = "") -> None:
        self.say("ended", outcome={"reason": reason, "message": message, "progress": {"step": 7}})
        sys.exit(EXIT_CODES[reason])

    def train(self, until: str) -> None:
        """Steps until the test leaves a note of that name, or somebody was told to stop."""
        step = 100 * self.life
        while not (self.shared / until).exists():
            step += 1
            self.step(step)
            time.sleep(0.02)
            if self.stop.exists():
                self.end("Preempted", f"rank {self.given.rank} stored a checkpoint")

    def behave(self) -> None:
        lives = json.loads(Path(self.given.document).read_text()).get(
            str(self.given.rank), [os.environ.get("FAKE_RANK", "complete")]
        )
        match lives[min(self.life, len(lives) - 1)].split(":"):
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
                self.end(reason, f"rank {self.given.rank} says {reason}")
            case ["progress-and-crash"]:
                self.step(self.life + 1)
                time.sleep(0.3)
                sys.exit(1)
            case ["silent"]:
                self.step(1)
                signal.pause()
            case ["deaf"]:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                while True:
                    self.step(1)
                    time.sleep(0.05)
            case ["noise"]:
                os.write(self.given.telemetry_fd, b'not JSON\n{"event": "unknown"}\n\n')
                self.step(3)
            case ["late"]:
                self.say("ended", outcome={"reason": "Complete"})
                sys.exit(139)
            case other:
                raise ValueError(other)
        self.end("Complete")


if __name__ == "__main__":
    FakeRank().behave()
