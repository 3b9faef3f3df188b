"""One rank as a child process: its telemetry pipe, its signs of life and how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.agent import guard
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.settings import Limits
from finetune_trainer.protocol.events import Alive, Ended, StepTime, parse
from finetune_trainer.protocol.outcome import EXIT_POLICIES, REASON_OF_EXIT_CODE, Outcome, Reason

LOG = logging.getLogger("finetune.agent")
MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
LONGEST_LINE = 1 << 20  # bytes; an event is far below, and a rank that writes without end must not fill the agent's memory


def out_of_memory_kills() -> int:
    """How many processes of this container the kernel killed because its memory was used up."""
    try:
        counts = dict(line.split() for line in MEMORY_EVENTS.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))


class WorkerProcess:
    """A started rank."""

    def __init__(
        self, rank: int, node: int, module: str, arguments: Sequence[str], environment: Mapping[str, str], monitor: Monitor
    ) -> None:
        self.rank, self.node = rank, node
        self.last_sign = time.monotonic()
        self.activity = "Starting"
        self._monitor = monitor
        self._ended: Outcome | None = None
        self._ended_at: float | None = None
        self._abandoned = False
        self._kills_before = out_of_memory_kills()
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*guard.command(signal.SIGKILL, module), *arguments, "--telemetry-fd", str(writing)],
                pass_fds=(writing,),
                env=dict(environment),
                process_group=0,
                stdin=subprocess.DEVNULL,
            )
        finally:
            os.close(writing)
        self._reader = threading.Thread(target=self._read, args=(reading,), name=f"rank-{rank}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The rank's process, which also names its process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def outcome(self, limits: Limits) -> Outcome | None:
        """How the rank ended; None as long as it neither said so nor exited.

        Its own word goes before its exit code: a crash in the interpreter's last breath does not undo a finished run.
        """
        if self._ended is None and not self.running:
            self._reader.join(1.0)  # the last word may still be in the pipe
            if self._ended is None:
                self._ended = self._from_exit_code()
        if self._ended is not None and self._ended_at is None:
            self._ended_at = time.monotonic()
        if self._ended_at is not None and self.running and time.monotonic() - self._ended_at > limits.last_word:
            LOG.warning("rank %d said how it ended but did not exit: it is killed", self.rank)
            self.kill()
        return self._ended

    def silence(self, limits: Limits) -> Outcome | None:
        """A Hang when the rank gave no sign of life for longer than what it does may take."""
        if self._ended is not None:
            return None
        silent = time.monotonic() - self.last_sign
        if silent < (limits.step if self.activity == "Training" else limits.start):
            return None
        return self._outcome(
            Reason.HANG, f"gave no sign of life for {silent:.0f} seconds while it was {self.activity.lower()}; see its log"
        )

    def ask_to_stop(self) -> None:
        """SIGTERM for the rank alone: those it started, such as loaders of data, must live until it stored its checkpoint."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL for the rank and all it started, or what is left of that when the rank itself is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """What the rank says from now on counts no more: it is being stopped for another's sake."""
        self._abandoned = True

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb") as pipe:
            while line := pipe.readline(LONGEST_LINE):
                if not self._abandoned:
                    self._hear(line)

    def _hear(self, line: bytes) -> None:
        try:
            event = parse(line)
        except ValidationError:
            LOG.warning("rank %d sent what is no event: %r", self.rank, line[:200])
            return
        self.last_sign = time.monotonic()
        match event:
            case Alive():
                self.activity = event.activity
            case StepTime():
                self.activity = "Training"
            case Ended():
                self._ended = event.outcome.model_copy(update=self._place(event.outcome))
        self._monitor.observe(self.rank, event)

    def _place(self, outcome: Outcome) -> dict[str, int]:
        if outcome.reason is Reason.COMPLETE:
            return {}
        return {"rank": self.rank if outcome.rank is None else outcome.rank, "node": self.node}

    def _from_exit_code(self) -> Outcome:
        code = self._process.wait()
        if code < 0:
            return self._killed_by(-code)
        reason = REASON_OF_EXIT_CODE.get(code, Reason.CRASHED)
        if reason is Reason.COMPLETE:
            return Outcome(reason=reason)
        return self._outcome(reason, f"exited with code {code} ({EXIT_POLICIES[reason].meaning}); see its log")

    def _killed_by(self, number: int) -> Outcome:
        try:
            name = f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            name = f"signal {number}"
        if number == signal.SIGKILL and out_of_memory_kills() > self._kills_before:
            return self._outcome(
                Reason.OUT_OF_MEMORY,
                f"was killed by {name} because the container's memory was used up: raise its limit, or lower microBatchSize",
            )
        return self._outcome(Reason.CRASHED, f"was killed by {name}")

    def _outcome(self, reason: Reason, what: str) -> Outcome:
        return Outcome(reason=reason, message=f"rank {self.rank} on node {self.node} {what}", rank=self.rank, node=self.node)
