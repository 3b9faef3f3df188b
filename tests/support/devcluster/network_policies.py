"""Enforces NetworkPolicies on the nodes, for tests of policies: the network plugin of the cluster ignores them.

kube-router runs on every node with its firewall only: routes and Services stay those of the cluster.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from . import gobuild, network, node, packages, paths, probe, process
from .gobuild import KUBE_ROUTER_MODULE
from .network import NODES, Node

_HEALTH_PORT = 20244
_CHAINS = re.compile(r"KUBE-(ROUTER|POD-FW|NWPLCY)-")  # of kube-router, in the output of iptables-save


@contextmanager
def enforced() -> Iterator[None]:
    """Enforce NetworkPolicies on all nodes until the end of the block, and remove all rules afterwards."""
    packages.require("ipset")
    gobuild.build((KUBE_ROUTER_MODULE,))
    try:
        for worker in NODES:
            _start(worker)
        for worker in NODES:
            url = f"http://{worker.address}:{_HEALTH_PORT}/healthz"
            process.wait_until(node.component(worker, "kube-router"), partial(probe.responds, url))
        yield
    finally:
        for worker in NODES:
            process.stop(node.component(worker, "kube-router"))
            _remove_rules(worker)


def _start(worker: Node) -> None:
    kubeconfig = node.state(worker) / "run" / "kubernetes" / "kube-router.kubeconfig"
    paths.replace_file(kubeconfig, paths.KUBECONFIG.read_text(), mode=0o600)
    node.start_component(
        worker,
        "kube-router",
        [
            str(gobuild.binary("kube-router")),
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--kubeconfig=/run/kubernetes/kube-router.kubeconfig",
            f"--hostname-override={worker.name}",
            f"--service-cluster-ip-range={network.SERVICES}",
            f"--health-port={_HEALTH_PORT}",
            "--metrics-port=0",
        ],
    )


def _remove_rules(worker: Node) -> None:
    """Remove the chains and the sets of addresses of kube-router, whose own command for that leaves them."""
    rules = node.run_inside(worker, "iptables-save", "--table=filter").splitlines(keepends=True)
    others = "".join(line for line in rules if not _CHAINS.search(line))
    node.run_inside(worker, "iptables-restore", "--table=filter", stdin=others)
    for name in node.run_inside(worker, "ipset", "list", "-name").split():
        node.run_inside(worker, "ipset", "destroy", name)
