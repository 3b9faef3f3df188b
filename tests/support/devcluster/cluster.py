"""The whole cluster: up, down, and what is running."""

import time
from pathlib import Path

from . import cgroups, control_plane, gobuild, network, node, packages, paths, process, services, sysctl
from .certificates import Authority
from .network import NODES


def components() -> tuple[str, ...]:
    """Every process of a healthy cluster."""
    workers = (node.component(worker, name) for worker in NODES for name in node.COMPONENTS)
    return (*control_plane.COMPONENTS, *services.COMPONENTS, *workers)


def is_up() -> bool:
    """Whether every process runs, the API server is ready and so are the nodes."""
    return all(process.pid(name) for name in components()) and control_plane.api_is_ready() and _nodes_are_ready()


def up() -> bool:
    """Build what is missing and start the cluster; False if it was up already. A broken one is replaced."""
    if is_up():
        return False
    paths.require_disk_space()
    packages.require(*packages.RUN)
    services.check()
    gobuild.build()
    with paths.exclusive("cluster"):
        if is_up():  # somebody else was faster
            return False
        _down()
        started = time.monotonic()
        try:
            _start()
        except BaseException:
            _down(keep=(paths.LOGS,))
            raise
        print(f"  cluster up in {time.monotonic() - started:.0f} s", flush=True)
    return True


def down() -> None:
    """Stop the cluster and remove every trace but the cache; does no harm when there is none."""
    with paths.exclusive("cluster"):
        _down()


def clean() -> None:
    """Stop the cluster and remove what this tool keeps in the cache: commands and images."""
    down()
    for name in ("bin", "cluster", "containers", "go-build", "logs", "registry"):
        paths.remove_tree(paths.cache() / name)


def _start() -> None:
    """Everything starts as soon as what it needs is there; the waiting comes last."""
    authority = Authority()
    sysctl.remember()
    gobuild.link(paths.COMMANDS)
    network.connect_host()
    control_plane.write_credentials(authority)
    control_plane.start_api()
    services.start_storage()
    for worker in NODES:
        node.start_machine(worker)
    for worker in NODES:
        node.connect(worker)
        node.write_credentials(worker, authority)
        node.start_containerd(worker)
    control_plane.wait_for_api()
    control_plane.start_controllers()
    services.start_prometheus()
    for worker in NODES:
        node.load_pause(worker)
        node.start_kubelet(worker)
    control_plane.wait_for_controllers()
    services.wait_for_storage()
    services.wait_for_prometheus()
    process.wait_until(node.component(NODES[-1], "kubelet"), _nodes_are_ready)
    # Without it the API server refuses the first pod of whoever is quick.
    process.wait_until("kube-controller-manager", _default_account_exists)


def _down(keep: tuple[Path, ...] = ()) -> None:
    for worker in NODES:
        process.stop(node.component(worker, "kubelet"))
    for worker in NODES:
        node.clear(worker)
    cgroups.kill()
    network.disconnect()
    cgroups.remove()
    services.remove_sockets()
    sysctl.restore()
    _remove_below(paths.STATE, keep)
    images = tuple(node.library(worker) / "containerd" for worker in NODES)
    _remove_below(paths.data(), images)


def _remove_below(directory: Path, keep: tuple[Path, ...]) -> None:
    """Remove a directory except what is kept inside it."""
    if not any(path.is_relative_to(directory) for path in keep):
        paths.remove_tree(directory)
    elif directory not in keep and directory.is_dir():
        for path in directory.iterdir():
            if path.is_dir():
                _remove_below(path, keep)
            else:
                path.unlink()


def _nodes_are_ready() -> bool:
    nodes = control_plane.get("/api/v1/nodes").get("items", [])
    ready = {
        item["metadata"]["name"]
        for item in nodes
        for condition in item["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    }
    return ready >= {worker.name for worker in NODES}


def _default_account_exists() -> bool:
    return bool(control_plane.get("/api/v1/namespaces/default/serviceaccounts/default"))
