"""The spare: a fork server that has imported what the ranks of this node import, so that a restart in place need not.

The spare is an optimization. Whatever goes wrong with it, ranks are started as new processes instead, and the log says why.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_trainer.agent import guard, memory
from finetune_trainer.agent.settings import Settings
from finetune_trainer.protocol.imports import ImportRecord

LOG = logging.getLogger("finetune.agent")
MAX_MESSAGE_BYTES = 1 << 16
MAX_STARTS = 3
CHECK_SECONDS = 1.0  # between two looks at the record of imports and at the free memory
FORK_TIMEOUT = 10.0  # seconds, for an answer to a request; a fork takes milliseconds
# Imports take about 600 MB that ranks do not share with the spare before they are forked from it.
NEEDED_BYTES = 1280 << 20  # without as much free memory the spare is not started
RESERVED_BYTES = 512 << 20  # with less free memory the spare is stopped


class SpareError(Exception):
    """The spare did not answer, or not as it should."""


class ForkedProcess:
    """A process that the spare has forked for this process: the part of `subprocess.Popen` that the agent uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None as long as the process runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the end of the process; returns its exit code."""
        code = self._wait(0)
        assert code is not None, "waitpid returns when the process has ended"
        return code

    def terminate(self) -> None:
        """Send SIGTERM, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _wait(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


class Spare:
    """Starts the fork server when the ranks have left a record of their imports, and asks it for ranks."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings, self._environment = settings, environment
        self._record = ImportRecord.path(settings.work_dir)
        self._record.unlink(missing_ok=True)  # of an earlier agent
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._is_ready = False
        self._starts_left = MAX_STARTS if sys.platform == "linux" else 0
        self._checked_at = 0.0

    @property
    def pid(self) -> int | None:
        """The pid of the fork server, whose exit status belongs to this object; None if there is none."""
        return None if self._server is None else self._server.pid

    @property
    def is_ready(self) -> bool:
        """Whether the next rank can be forked."""
        return self._is_ready

    def prepare(self) -> None:
        """Start the fork server when it is due, and see how it is; call this regularly while ranks run."""
        if self._server is None:
            if self._starts_left and self._is_check_due() and self._record_age() >= self._settings.limits.spare_delay:
                self._start()
            return
        if not self._is_ready:
            self._receive_readiness()
        elif self._server.poll() is not None:
            self._stop(f"it ended with exit code {self._server.poll()}")
        if self._server is not None and self._is_check_due():
            available = memory.available_bytes()
            if available is not None and available < RESERVED_BYTES:
                self._give_up(f"only {available >> 20} MiB of memory are left")

    def fork(self, arguments: Sequence[str], telemetry: int) -> ForkedProcess | None:
        """A new rank with these arguments, which sends events to the descriptor `telemetry`; None if the spare has none."""
        if not self._is_ready:
            return None
        reading, writing = os.pipe()
        try:
            process = ForkedProcess(self._request_fork(arguments, telemetry, reading))
            os.write(writing, b"g")  # without this byte the rank exits
        except (OSError, ValueError, KeyError, SpareError) as error:
            self._stop(f"it did not fork a rank ({error})")
            return None
        finally:
            os.close(reading)
            os.close(writing)
        LOG.info("process %d is forked from the spare", process.pid)
        return process

    def close(self) -> None:
        """Stop the fork server; the ranks that it has forked go on."""
        self._is_ready = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _record_age(self) -> float:
        """Seconds since the ranks have left the record; -1 without one."""
        try:
            return max(0.0, time.time() - self._record.stat().st_mtime)
        except FileNotFoundError:
            return -1.0

    def _is_check_due(self) -> bool:
        now = time.monotonic()
        if now - self._checked_at < CHECK_SECONDS:
            return False
        self._checked_at = now
        return True

    def _start(self) -> None:
        available = memory.available_bytes()
        if available is not None and available < NEEDED_BYTES:
            self._give_up(f"{available >> 20} MiB of memory are free, and it needs up to {NEEDED_BYTES >> 20} MiB")
            return
        self._starts_left -= 1
        guard.adopt_orphans()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._server = subprocess.Popen(
                [
                    *guard.command(signal.SIGKILL, "finetune_trainer.agent.fork_server"),
                    "--socket-fd", str(theirs.fileno()), "--imports", str(self._record),
                    "--rank-module", self._settings.rank_module,
                    "--niceness", str(self._settings.limits.spare_niceness),
                ],
                pass_fds=(theirs.fileno(),),
                env=dict(self._environment),
                process_group=0,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            self._stop(f"it cannot be started ({error})")
            return
        finally:
            theirs.close()
        ours.settimeout(0)
        self._connection = ours

    def _receive_readiness(self) -> None:
        assert self._connection is not None, "a started server has a connection"
        try:
            message = self._connection.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._stop(str(error))
            return
        answer = json.loads(message) if message else {}
        if "error" in answer:
            self._give_up(answer["error"])
        elif "seconds" not in answer:
            self._stop("it ended while it imported the libraries")
        else:
            self._is_ready = True
            self._connection.settimeout(FORK_TIMEOUT)
            LOG.info("a spare process has imported the libraries in %.0f s: a restart of the ranks forks it", answer["seconds"])

    def _request_fork(self, arguments: Sequence[str], telemetry: int, start: int) -> int:
        assert self._connection is not None, "a ready server has a connection"
        request = json.dumps({"arguments": list(arguments), "agent": os.getpid()}).encode()
        socket.send_fds(self._connection, [request], [telemetry, start])
        answer: dict[str, Any] = json.loads(self._connection.recv(MAX_MESSAGE_BYTES) or b"{}")
        if "pid" not in answer:
            raise SpareError("it ended")
        pid = int(answer["pid"])
        if _parent(pid) != os.getpid():
            raise SpareError("the system did not make this process the parent of the rank")
        return pid

    def _stop(self, reason: str) -> None:
        """Stop the fork server, which may be started again."""
        self.close()
        again = "" if self._starts_left else ", and no other one is started"
        LOG.warning("the spare process for restarts is gone%s: %s", again, reason)

    def _give_up(self, reason: str) -> None:
        """Stop the fork server for good."""
        self.close()
        self._starts_left = 0
        LOG.info("restarts of the ranks import all libraries, because there is no spare process: %s", reason)


def _parent(pid: int) -> int:
    """The parent of a process; raises OSError if there is no such process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
