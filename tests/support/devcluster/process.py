"""Background processes without a service manager: started with a log and a pid file, waited for, stopped by pid.

A pid file also holds the process's start time, so that a pid the system has given to somebody else is never signalled.
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
PATIENCE = 90.0  # seconds; a component that needs longer on two busy cores is broken


def log_path(name: str) -> Path:
    """Where a component's output goes."""
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


# Children of this very process stay zombies until asked for, which would make them look alive.
_children: dict[int, subprocess.Popen[bytes]] = {}


def names() -> list[str]:
    """Every component that has been started."""
    return sorted(file.name for file in PIDS.iterdir() if not file.name.startswith(".")) if PIDS.is_dir() else []


def pid(name: str) -> int | None:
    """The pid of a component, or None if it is not running."""
    try:
        number, started = (PIDS / name).read_text().split()
    except FileNotFoundError:
        return None
    if (child := _children.get(int(number))) is not None and child.poll() is not None:
        return None
    return int(number) if _start_time(int(number)) == started else None


def stop(name: str, patience: float = 5) -> None:
    """End a component: asked first, then forced."""
    for sign, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        if (running := pid(name)) is None:
            break
        os.kill(running, sign)
        deadline = time.monotonic() + seconds
        while pid(name) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
    (PIDS / name).unlink(missing_ok=True)


def wait_until(name: str, ready: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for a component to be ready, and say what its log says when it is not."""
    deadline = time.monotonic() + patience
    while not ready():
        if pid(name) is None:
            raise failure(name, "ended")
        if time.monotonic() > deadline:
            raise failure(name, f"was not ready after {patience:.0f} s")
        time.sleep(0.05)


def failure(name: str, what: str) -> ClusterError:
    """The sentence for a component that failed, with the end of its log."""
    log = log_path(name)
    last = log.read_text(errors="replace").splitlines()[-12:] if log.exists() else []
    return ClusterError("\n".join([f"{name} {what} (log: {log}); its last lines:", *last]))


def _start_time(number: int) -> str | None:
    """Clock ticks since boot at which the process began; None when it is gone or a zombie."""
    try:
        after_name = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] == "Z" else after_name[19]
