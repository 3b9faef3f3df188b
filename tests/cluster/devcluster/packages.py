"""Debian packages the cluster needs, installed only when missing."""

import os
import subprocess
from pathlib import Path

from . import paths
from .errors import ClusterError

RUN = ("containernetworking-plugins", "iproute2", "nftables", "iptables", "conntrack", "util-linux", "mount")
IMAGES = ("buildah", "mmdebstrap", "ca-certificates")


def missing(*names: str) -> list[str]:
    """Those of the packages that are not installed."""
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}|${binary:Package}\n", *names], capture_output=True, text=True
    )
    installed = {line.split("|")[1].split(":")[0] for line in listed.stdout.splitlines() if line.startswith("ii")}
    return [name for name in names if name not in installed]


def require(*names: str) -> None:
    """Install what is missing; costs a few milliseconds when nothing is."""
    if absent := missing(*names):
        print(f"  installing {' '.join(absent)}", flush=True)
        _apt("update", "--quiet")
        _apt("install", "--quiet", "--yes", "--no-install-recommends", *absent)


def unpacked(name: str, file: str) -> Path:
    """A file of a package that is unpacked in the cache and not installed, so that its service cannot start."""
    directory = paths.cache() / "packages" / name
    if not (directory / file).exists():
        print(f"  unpacking {name}", flush=True)
        downloads = directory.with_name(f".{name}.downloading")
        paths.remove_tree(downloads)
        paths.remove_tree(directory)
        downloads.mkdir(parents=True)
        _apt("update", "--quiet")
        _apt("download", "--quiet", name, cwd=downloads)
        [archive] = downloads.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, downloads / "root"], check=True)
        (downloads / "root").rename(directory)
        paths.remove_tree(downloads)
    return directory / file


def _apt(*arguments: str, cwd: Path | None = None) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"apt-get {' '.join(arguments)} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
