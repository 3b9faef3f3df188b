"""Addresses of the cluster, and the host's part of its network.

The host has the address 10.99.0.1 on a separate bridge. Each node is a network namespace that is connected to this bridge by a
veth pair, and has a bridge for its pods. There is no address translation: pods, nodes and host reach each other directly, and
nothing outside.
"""

import os
import subprocess
from dataclasses import dataclass

from .errors import run

BRIDGE = "ft-devcluster"
HOST = "10.99.0.1"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
PODS = "10.244.0.0/16"
DNS_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Node:
    """A worker node and its addresses."""

    number: int

    @property
    def name(self) -> str:
        """Name of the node in Kubernetes."""
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        """Address on the bridge of the host."""
        return f"10.99.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """Address range of the pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The host's end of the veth pair; taking it down disconnects the node."""
        return f"ft-{self.name}"


NODES = (Node(1), Node(2))


def bypass_proxies() -> None:
    """Exclude the addresses of the cluster from the proxies of this process and its children."""
    addresses = f"127.0.0.1,localhost,{HOST},{HOST}/24,{PODS},{SERVICES}"
    for name in ("NO_PROXY", "no_proxy"):
        previous = os.environ.get(name, "")
        if addresses not in previous:
            os.environ[name] = f"{previous},{addresses}".lstrip(",")


def connect_host() -> None:
    """Create the bridge of the host and assign its address."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def connect(node: Node, pid: int) -> None:
    """Connect the network namespace of a node (that of process `pid`) to the bridge, with routes to all pods."""
    _ip("link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _ip("link", "set", node.link, "master", BRIDGE, "up")
    _ip("route", "replace", node.pods, "via", node.address)
    inside = ("nsenter", f"--target={pid}", "--net", "ip")
    _ip("link", "set", "lo", "up", command=inside)
    _ip("address", "add", f"{node.address}/24", "dev", "eth0", command=inside)
    _ip("link", "set", "eth0", "up", command=inside)
    _ip("route", "add", "default", "via", HOST, command=inside)
    for other in NODES:
        if other != node:
            _ip("route", "add", other.pods, "via", other.address, command=inside)


def disconnect() -> None:
    """Remove all existing links; their routes are removed with them."""
    for link in (*(node.link for node in NODES), BRIDGE):
        subprocess.run(["ip", "link", "delete", link], capture_output=True)


def _ip(*arguments: str, command: tuple[str, ...] = ("ip",)) -> None:
    run(*command, *arguments)
