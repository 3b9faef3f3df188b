"""Paths of the cluster's files, and locks.

Files about running processes (pids, sockets, certificates, logs) are under /run, and disappear with the processes at a reboot.
Files that are reused (binaries, images) or large (volumes) are in the cache directory.
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

# Bytes of commands and images: those of the build and of the registry, and a copy on each of two nodes.
REQUIRED_BYTES = 40 * 10**9

# Nodes have private directories at these paths (node.py), so a cache below them would not be visible on a node.
HIDDEN_FROM_NODES = (Path("/run"), Path("/var/run"), Path("/var/lib"), Path("/var/log"))


def cache() -> Path:
    """The cache directory, which is kept when the cluster stops; FINETUNE_CACHE overrides it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = Path(os.environ.get("FINETUNE_CACHE") or base / "finetune-operator").resolve()
    if any(chosen.is_relative_to(hidden) for hidden in HIDDEN_FROM_NODES):
        raise ClusterError(f"the cache {chosen} must be outside {', '.join(map(str, HIDDEN_FROM_NODES))}: set FINETUNE_CACHE")
    return chosen


def require_disk_space() -> None:
    """Raise ClusterError if the disk is too small for commands and images that are not built yet; a full disk stops etcd."""
    chosen = cache()
    if (chosen / "registry").exists():
        return
    chosen.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(chosen).free
    if free < REQUIRED_BYTES:
        raise ClusterError(
            f"{free / 1e9:.0f} GB are free at {chosen}, and the cluster's commands and images take {REQUIRED_BYTES / 1e9:.0f}: "
            "make room, or set FINETUNE_CACHE to a folder on a larger disk"
        )


def data() -> Path:
    """The directory of large files of the running cluster: volumes, object storage, containerd's images."""
    return cache() / "cluster"


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file atomically, so that no reader sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.rename(path)


def remove_tree(path: Path) -> None:
    """Remove a directory if it exists; raises an error if a file cannot be removed."""
    if path.is_dir():
        shutil.rmtree(path)


@contextmanager
def shared(name: str) -> Iterator[Callable[[], bool]]:
    """Hold a lock that other processes can share.

    Yields a function that returns whether this process is the only holder, and if so makes the lock exclusive.
    """
    lock = cache() / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as lock_file:

        def is_only_holder() -> bool:
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        fcntl.flock(lock_file, fcntl.LOCK_SH)
        yield is_only_holder


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold an exclusive lock; other processes wait for it."""
    lock = cache() / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield
