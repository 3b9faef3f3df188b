"""Chooses the network interface at which Gloo listens.

Without a choice Gloo listens at the address of the machine's own name. In the network of a node, and on many other machines,
/etc/hosts maps that name to a loopback address, at which no other node can connect.
"""

from __future__ import annotations

import contextlib
import os
import socket

import psutil

VARIABLE = "GLOO_SOCKET_IFNAME"


def choose_gloo_interface(master: str) -> None:
    """Let Gloo listen at the interface that leads to `master`, a host name or an address, unless the environment names another.

    A host that cannot be reached is not reported here, but by the ranks' attempt to connect to it.
    """
    if VARIABLE in os.environ:
        return
    with contextlib.suppress(OSError):
        if (name := _interface_of(_local_address(master))) is not None:
            os.environ[VARIABLE] = name


def _local_address(host: str) -> str:
    """This machine's address on the way to `host`; no packet is sent."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _interface_of(address: str) -> str | None:
    for name, entries in psutil.net_if_addrs().items():
        if address in (entry.address.partition("%")[0] for entry in entries):
            return str(name)
    return None
