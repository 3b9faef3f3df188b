"""Installs the Debian packages that the cluster needs."""

import subprocess

from .errors import run

RUN = ("containernetworking-plugins", "iproute2", "nftables", "iptables", "conntrack", "util-linux", "mount")
IMAGES = ("buildah", "mmdebstrap", "ca-certificates")


def missing(*names: str) -> list[str]:
    """The packages that are not installed."""
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}|${binary:Package}\n", *names], capture_output=True, text=True
    )
    installed = {line.split("|")[1].split(":")[0] for line in listed.stdout.splitlines() if line.startswith("ii")}
    return [name for name in names if name not in installed]


def require(*names: str) -> None:
    """Install missing packages; takes a few milliseconds if there are none."""
    if absent := missing(*names):
        print(f"  installing {' '.join(absent)}", flush=True)
        _apt("update", "--quiet")
        _apt("install", "--quiet", "--yes", "--no-install-recommends", *absent)


def _apt(*arguments: str) -> None:
    run("apt-get", *arguments, env={"DEBIAN_FRONTEND": "noninteractive"})
