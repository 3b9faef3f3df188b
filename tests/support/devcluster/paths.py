"""Where the cluster keeps its files.

Two places, because two lifetimes: what describes running processes (pids, sockets, certificates, logs) lies under /run and
is lost together with them at a reboot; what is worth keeping (binaries, images) or is big (volumes) lies in the cache.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ClusterError

SOURCES = Path(__file__).resolve().parent
REPOSITORY = SOURCES.parents[2]
STATE = Path("/run/finetune-devcluster")
LOGS = STATE / "logs"
KUBECONFIG = STATE / "admin.kubeconfig"
COMMANDS = STATE / "bin"

# Bytes of commands and images: the build's own, the registry's, and a copy on each of two nodes.
ROOM = 40 * 10**9

# A node sees directories of its own in these places (node.py), so a cache below them would be hidden from it.
HIDDEN_FROM_NODES = (Path("/run"), Path("/var/run"), Path("/var/lib"), Path("/var/log"))


def cache() -> Path:
    """The directory that outlives the cluster; FINETUNE_CACHE moves it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = Path(os.environ.get("FINETUNE_CACHE") or base / "finetune-operator").resolve()
    if any(chosen.is_relative_to(hidden) for hidden in HIDDEN_FROM_NODES):
        raise ClusterError(f"the cache {chosen} must lie outside {', '.join(map(str, HIDDEN_FROM_NODES))}: set FINETUNE_CACHE")
    return chosen


def require_disk_space() -> None:
    """Raises ClusterError where the disk is too small for all that is not there yet; a full one stops etcd half way."""
    chosen = cache()
    if (chosen / "registry").exists():
        return
    chosen.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(chosen).free
    if free < ROOM:
        raise ClusterError(
            f"{free / 1e9:.0f} GB are free at {chosen}, and the cluster's commands and images take {ROOM / 1e9:.0f}: "
            "make room, or set FINETUNE_CACHE to a folder on a larger disk"
        )


def data() -> Path:
    """What the running cluster writes in bulk: volumes of pods, object storage, containerd's images."""
    return cache() / "cluster"


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a run that was killed, never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.rename(path)


def remove_tree(path: Path) -> None:
    """Remove a directory if it is there; what cannot be removed is an error, since it would be left behind."""
    if path.is_dir():
        shutil.rmtree(path)


@contextmanager
def shared(name: str) -> Iterator[Callable[[], bool]]:
    """Hold a lock together with others; what it gives tells whether nobody else holds it, and from then on keeps others out."""
    lock = cache() / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:

        def alone() -> bool:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        fcntl.flock(held, fcntl.LOCK_SH)
        yield alone


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Let one process at a time build or change the cluster; a second one waits."""
    lock = cache() / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
