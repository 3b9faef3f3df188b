"""Fake nodes, for measurements with more pods than one machine can run.

kwok simulates the kubelets of nodes that do not exist: pods on them become Running at once and terminate when they are
deleted. The nodes have a taint, so that only pods with the toleration and the node selector are scheduled there.
"""

import json
from pathlib import Path

from . import paths, process
from .errors import run
from .gobuild import MODULES, binary

TAINT = "kwok.x-k8s.io/node"
SELECTOR = {"type": "kwok"}
TOLERATION = {"key": TAINT, "operator": "Exists"}
_NAME = "kwok"


def start(count: int) -> None:
    """Add `count` fake nodes, named kwok-0 and so on, and simulate their kubelets."""
    if process.pid(_NAME) is None:
        _start()
    nodes = {"apiVersion": "v1", "kind": "List", "items": [_node(number) for number in range(count)]}
    _kubectl("apply", "--filename=-", stdin=json.dumps(nodes))
    if count:
        _kubectl("wait", "node", f"--selector=type={SELECTOR['type']}", "--for=condition=Ready", "--timeout=60s")


def stop() -> None:
    """Remove the fake nodes. Delete their pods before, because nothing terminates them afterwards."""
    _kubectl("delete", "node", f"--selector=type={SELECTOR['type']}", "--ignore-not-found")
    process.stop(_NAME)


def _start() -> None:
    process.start(
        _NAME,
        [
            binary("kwok"),
            f"--kubeconfig={paths.KUBECONFIG}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={TAINT}=fake",
            "--node-lease-duration-seconds=40",
            "--cidr=10.245.0.0/16",
            *(f"--config={path}" for path in stages()),
        ],
    )


def _node(number: int) -> dict[str, object]:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"kwok-{number}",
            "annotations": {TAINT: "fake"},
            "labels": {**SELECTOR, "kubernetes.io/hostname": f"kwok-{number}"},
        },
        "spec": {"taints": [{"key": TAINT, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def stages() -> list[Path]:
    """kwok's default stages for nodes and pods; they are part of the module, not of the command."""
    [module] = [module for module in MODULES if module.name == _NAME]
    downloaded = json.loads(run("go", "mod", "download", "-json", "sigs.k8s.io/kwok", cwd=module.source))
    directory = Path(downloaded["Dir"]) / "kustomize" / "stage"
    files = [path for kind in ("node", "pod") for path in sorted((directory / kind / "fast").glob("*.yaml"))]
    return [path for path in files if path.name != "kustomization.yaml"]


def _kubectl(*arguments: str, stdin: str | None = None) -> None:
    run(binary("kubectl"), f"--kubeconfig={paths.KUBECONFIG}", *arguments, stdin=stdin)
