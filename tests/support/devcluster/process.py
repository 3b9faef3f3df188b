"""Background processes without a service manager: started with a log and a pid file, and stopped by pid.

A pid file also contains the start time of the process, so that a pid that the system has reused is never signaled.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import cgroups, paths
from .errors import ClusterError

PIDS = paths.STATE / "pids"
READY_TIMEOUT = 90.0  # seconds; a component that needs longer on two busy cores is broken


def log_path(name: str) -> Path:
    """The log file of a component."""
    return paths.LOGS / f"{name}.log"


def start(
    name: str, command: Sequence[str | Path], *, group: str = "host", inside: int | None = None, cwd: Path | str = "/"
) -> None:
    """Start a component in its control group, optionally inside the namespaces of the process `inside`."""
    cgroups.create(group)
    for directory in (PIDS, paths.LOGS):
        directory.mkdir(parents=True, exist_ok=True)
    enter = "".join(f"echo $$ >{shlex.quote(str(file))}; " for file in cgroups.procs_files(group))
    if inside is not None:
        command = ["nsenter", f"--target={inside}", "--mount", "--net", "--uts", *command]
    log = log_path(name)
    with log.open("a") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-ec", f'{enter} exec "$@"', "sh", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
        )
    _children[child.pid] = child
    paths.replace_file(PIDS / name, f"{child.pid} {_start_time(child.pid)}")


# Children of this process stay zombies until they are polled, and would appear to be running.
_children: dict[int, subprocess.Popen[bytes]] = {}


def names() -> list[str]:
    """Names of all components that were started."""
    if not PIDS.is_dir():
        return []
    return sorted(file.name for file in PIDS.iterdir() if not file.name.startswith("."))


def pid(name: str) -> int | None:
    """The pid of a component, or None if it is not running."""
    try:
        number, started = (PIDS / name).read_text().split()
    except FileNotFoundError:
        return None
    if (child := _children.get(int(number))) is not None and child.poll() is not None:
        return None
    return int(number) if _start_time(int(number)) == started else None


def stop(name: str, timeout: float = 5) -> None:
    """Stop a component with SIGTERM, or with SIGKILL after `timeout` seconds."""
    for signal_number, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        if (running := pid(name)) is None:
            break
        os.kill(running, signal_number)
        deadline = time.monotonic() + seconds
        while pid(name) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
    (PIDS / name).unlink(missing_ok=True)


def wait_until(name: str, ready: Callable[[], bool], timeout: float = READY_TIMEOUT) -> None:
    """Wait until a component is ready. Raises ClusterError with the end of its log if it exits or is not ready in time."""
    deadline = time.monotonic() + timeout
    while not ready():
        if pid(name) is None:
            raise failure(name, "exited")
        if time.monotonic() > deadline:
            raise failure(name, f"was not ready after {timeout:.0f} s")
        time.sleep(0.05)


def failure(name: str, problem: str) -> ClusterError:
    """The error for a component that failed, with the end of its log."""
    log = log_path(name)
    last = log.read_text(errors="replace").splitlines()[-12:] if log.exists() else []
    return ClusterError("\n".join([f"{name} {problem} (log: {log}); its last lines:", *last]))


def _start_time(number: int) -> str | None:
    """Start time of a process in clock ticks since boot; None if it does not exist or is a zombie."""
    try:
        after_name = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start_time = after_name[0], after_name[19]
    return None if state == "Z" else start_time
