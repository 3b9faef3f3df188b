"""One rank as a child process: its telemetry pipe, its heartbeats and its outcome."""

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
MAX_LINE_BYTES = 1 << 20  # far more than an event; a rank that writes without end must not fill the agent's memory


def out_of_memory_kills() -> int:
    """How many processes of this container the kernel has killed because its memory was exhausted."""
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
        self.last_heartbeat = time.monotonic()
        self.activity = "Starting"
        self._monitor = monitor
        self._outcome: Outcome | None = None
        self._outcome_at: float | None = None
        self._ignores_events = False
        self._kills_before = out_of_memory_kills()
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*guard.command(signal.SIGKILL, module), *arguments, "--telemetry-fd", str(write_end)],
                pass_fds=(write_end,),
                env=dict(environment),
                process_group=0,
                stdin=subprocess.DEVNULL,
            )
        finally:
            os.close(write_end)
        self._reader = threading.Thread(target=self._read_events, args=(read_end,), name=f"rank-{rank}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The pid of the rank, which is also the id of its process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def outcome(self, limits: Limits) -> Outcome | None:
        """The outcome of the rank; None as long as it has neither reported one nor exited.

        A reported outcome takes precedence over the exit code: a crash during interpreter shutdown does not undo the run.
        """
        if self._outcome is None and not self.is_running:
            self._reader.join(1.0)  # the outcome may still be in the pipe
            if self._outcome is None:
                self._outcome = self._outcome_from_exit_code()
        if self._outcome is not None and self._outcome_at is None:
            self._outcome_at = time.monotonic()
        if self._outcome_at is not None and self.is_running and time.monotonic() - self._outcome_at > limits.exit_grace:
            LOG.warning("rank %d reported its outcome but did not exit: killing it", self.rank)
            self.kill()
        return self._outcome

    def hang(self, limits: Limits) -> Outcome | None:
        """A Hang outcome if the last heartbeat is older than the limit for the rank's activity; else None."""
        if self._outcome is not None:
            return None
        silent_seconds = time.monotonic() - self.last_heartbeat
        limit = limits.step_timeout if self.activity == "Training" else limits.start_timeout
        if silent_seconds < limit:
            return None
        activity = self.activity.lower()
        return self._failure(Reason.HANG, f"sent no heartbeat for {silent_seconds:.0f} seconds while {activity}; see its log")

    def terminate(self) -> None:
        """Send SIGTERM to the rank only: its child processes, such as data loaders, must live until it stored a checkpoint."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the rank and its child processes, even if the rank itself has exited."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def ignore_events(self) -> None:
        """Ignore all further events: the rank is being stopped because of another rank."""
        self._ignores_events = True

    def _read_events(self, descriptor: int) -> None:
        with open(descriptor, "rb") as pipe:
            while line := pipe.readline(MAX_LINE_BYTES):
                if not self._ignores_events:
                    self._handle_line(line)

    def _handle_line(self, line: bytes) -> None:
        try:
            event = parse(line)
        except ValidationError:
            LOG.warning("rank %d sent an invalid event: %r", self.rank, line[:200])
            return
        self.last_heartbeat = time.monotonic()
        match event:
            case Alive():
                self.activity = event.activity
            case StepTime():
                self.activity = "Training"
            case Ended():
                self._outcome = self._locate(event.outcome)
        self._monitor.observe(self.rank, event)

    def _locate(self, outcome: Outcome) -> Outcome:
        """Add the rank and node of a failure to its outcome."""
        if outcome.reason is Reason.COMPLETE:
            return outcome
        rank = self.rank if outcome.rank is None else outcome.rank
        return outcome.model_copy(update={"rank": rank, "node": self.node})

    def _outcome_from_exit_code(self) -> Outcome:
        code = self._process.wait()
        if code < 0:
            return self._outcome_from_signal(-code)
        reason = REASON_OF_EXIT_CODE.get(code, Reason.CRASHED)
        if reason is Reason.COMPLETE:
            return Outcome(reason=reason)
        return self._failure(reason, f"exited with code {code} ({EXIT_POLICIES[reason].meaning}); see its log")

    def _outcome_from_signal(self, number: int) -> Outcome:
        try:
            name = f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            name = f"signal {number}"
        if number == signal.SIGKILL and out_of_memory_kills() > self._kills_before:
            return self._failure(
                Reason.OUT_OF_MEMORY,
                f"was killed by {name} because the container ran out of memory: raise its limit, or lower microBatchSize",
            )
        return self._failure(Reason.CRASHED, f"was killed by {name}")

    def _failure(self, reason: Reason, text: str) -> Outcome:
        return Outcome(reason=reason, message=f"rank {self.rank} on node {self.node} {text}", rank=self.rank, node=self.node)
