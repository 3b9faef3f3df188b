"""One rank as a child process: its telemetry pipe, its signs of life and its outcome."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from finetune_trainer.agent import stacks
from finetune_trainer.agent.launcher import Launcher
from finetune_trainer.agent.liveness import Liveness
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.settings import Limits, Settings
from finetune_trainer.agent.stacks import Stack
from finetune_trainer.protocol.events import Ended, parse
from finetune_trainer.protocol.outcome import EXIT_POLICIES, REASON_OF_EXIT_CODE, Outcome, Reason

LOG = logging.getLogger("finetune.agent")
HANG_FIELD = "runPolicy.hang"
MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
MEMORY_EVENTS_OF_VERSION_1 = Path("/sys/fs/cgroup/memory/memory.oom_control")
PIPE_SECONDS = 5.0  # until the last events of an ended rank are read; its child processes may keep the pipe open
MAX_LINE_BYTES = 1 << 20  # far more than an event; a rank that writes without end must not fill the agent's memory


def out_of_memory_kills() -> int:
    """How many processes of this container the kernel has killed because its memory was exhausted."""
    for file in (MEMORY_EVENTS, MEMORY_EVENTS_OF_VERSION_1):
        try:
            counts = dict(line.split() for line in file.read_text().splitlines())
        except (OSError, ValueError):
            continue
        return int(counts.get("oom_kill", 0))
    return 0


class WorkerProcess:
    """A started rank."""

    def __init__(self, rank: int, settings: Settings, arguments: Sequence[str], launcher: Launcher, monitor: Monitor) -> None:
        self.rank, self.node = rank, settings.node_rank
        self.liveness = Liveness(settings.hang, time.monotonic())
        self._stack_file = settings.work_dir / "stacks" / f"rank-{rank}"
        self._monitor = monitor
        self._outcome: Outcome | None = None
        self._outcome_at: float | None = None
        self._ignores_events = False
        self._kills_before = out_of_memory_kills()
        self._stack_file.parent.mkdir(parents=True, exist_ok=True)
        read_end, write_end = os.pipe()
        try:
            self._process = launcher.start([*arguments, "--stack-file", str(self._stack_file)], write_end)
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
            self._reader.join(PIPE_SECONDS)  # the outcome may still be in the pipe
            if self._outcome is None:
                self._outcome = self._outcome_from_exit_code()
        if self._outcome is not None and self._outcome_at is None:
            self._outcome_at = time.monotonic()
        if self._outcome_at is not None and self.is_running and time.monotonic() - self._outcome_at > limits.exit_grace:
            LOG.warning("rank %d reported its outcome but did not exit: killing it", self.rank)
            self.kill()
        return self._outcome

    def hangs(self, now: float, peers_alive_at: float) -> bool:
        """Whether the rank works and has been silent for longer than its limit; see `Liveness`."""
        return self._outcome is None and self.liveness.hangs(now, peers_alive_at)

    def dump_stack(self) -> Stack:
        """The rank's stacks; logged, since only a part of it fits into a message."""
        stack = stacks.dump(self.pid, self._stack_file) if self.is_running else Stack()
        LOG.info("rank %d %s\n%s", self.rank, stack.summary or "left no stack", stack.text.rstrip())
        return stack

    def hang_outcome(self, now: float, peers_alive_at: float, stack: Stack) -> Outcome:
        """The outcome of a rank that hangs."""
        life = self.liveness
        silence, activity = life.silence(now, peers_alive_at), life.activity.lower()
        limit = f"limit {life.limit:.0f} s, {HANG_FIELD}.{to_camel(life.limit_field)}"
        where = f"; it {stack.summary}" if stack.summary else ""
        return self._failure(
            Reason.HANG, f"sent no heartbeat for {silence:.0f} seconds while {activity} ({limit}){where}; see its log"
        )

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
        self.liveness.observe(event, time.monotonic())
        if isinstance(event, Ended):
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
            # A library or the user's code has ended the process; the trainer reports the outcome of a complete run.
            return self._failure(Reason.CRASHED, "exited with code 0 without reporting its outcome; see its log")
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
        # The kernel ends a process that way if it writes to shared memory for which there is no room, but also if memory is
        # broken: so the ranks are restarted, which a shortage would survive only by chance.
        advice = ": if /dev/shm was full, raise workers.sharedMemory" if number == signal.SIGBUS else ""
        return self._failure(Reason.CRASHED, f"was killed by {name}{advice}")

    def _failure(self, reason: Reason, text: str) -> Outcome:
        return Outcome(reason=reason, message=f"rank {self.rank} on node {self.node} {text}", rank=self.rank, node=self.node)
