"""Addresses, and the host's side of the network.

The host is 10.99.0.1 on a bridge of its own; each node is a network namespace with one end of a veth pair on that bridge,
and a bridge for its pods inside. Nothing is translated: pods, nodes and host reach each other by address, and nobody outside.
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
    """A worker and its addresses."""

    number: int

    @property
    def name(self) -> str:
        """Its name in Kubernetes."""
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        """Its address on the host's bridge."""
        return f"10.99.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """The addresses of its pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The host's end of its cable: taking this link down cuts the node off."""
        return f"ft-{self.name}"


NODES = (Node(1), Node(2))


def bypass_proxies() -> None:
    """Let this process and all it starts reach the cluster's addresses directly, whatever proxy the environment names."""
    direct = f"127.0.0.1,localhost,{HOST},{HOST}/24,{PODS},{SERVICES}"
    for name in ("NO_PROXY", "no_proxy"):
        before = os.environ.get(name, "")
        if direct not in before:
            os.environ[name] = f"{before},{direct}".lstrip(",")


def connect_host() -> None:
    """Give the host its bridge and address."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def connect(node: Node, pid: int) -> None:
    """Plug a node's namespace (that of process `pid`) into the bridge, with routes to the pods of all nodes."""
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
    """Remove the links (routes go with them); whatever is missing is skipped."""
    for link in (*(node.link for node in NODES), BRIDGE):
        subprocess.run(["ip", "link", "delete", link], capture_output=True)


def _ip(*arguments: str, command: tuple[str, ...] = ("ip",)) -> None:
    run(*command, *arguments)
