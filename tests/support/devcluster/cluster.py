"""Starts and stops the whole cluster, and checks whether it is healthy."""

import time
from pathlib import Path

from . import cgroups, control_plane, gobuild, network, node, packages, paths, process, services, sysctl
from .certificates import Authority
from .network import NODES


def components() -> tuple[str, ...]:
    """Names of all processes of a healthy cluster."""
    workers = (node.component(worker, name) for worker in NODES for name in node.COMPONENTS)
    return (*control_plane.COMPONENTS, *services.COMPONENTS, *workers)


def is_up() -> bool:
    """Whether every process runs, and the API server and the nodes are ready."""
    return all(process.pid(name) for name in components()) and control_plane.api_is_ready() and _nodes_are_ready()


def up() -> bool:
    """Build missing commands and start the cluster; a broken cluster is replaced. Returns False if it was up already."""
    if is_up():
        return False
    paths.require_disk_space()
    packages.require(*packages.RUN)
    services.check()
    gobuild.build()
    with paths.exclusive("cluster"):
        if is_up():  # another process was faster
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
    """Stop the cluster, if there is one, and remove everything except the cache."""
    with paths.exclusive("cluster"):
        _down()


def clean() -> None:
    """Stop the cluster and remove its commands and images from the cache."""
    down()
    for name in ("bin", "cluster", "containers", "go-build", "logs", "registry"):
        paths.remove_tree(paths.cache() / name)


def _start() -> None:
    """Start each component as soon as its dependencies have started, and wait for readiness as late as possible."""
    authority = Authority()
    sysctl.save()
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
    # Without the default service account the API server rejects pods.
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
    _remove_except(paths.STATE, keep)
    images = tuple(node.library(worker) / "containerd" for worker in NODES)
    _remove_except(paths.data(), images)


def _remove_except(directory: Path, keep: tuple[Path, ...]) -> None:
    """Remove a directory, but keep some directories inside it."""
    if not any(path.is_relative_to(directory) for path in keep):
        paths.remove_tree(directory)
    elif directory not in keep and directory.is_dir():
        for path in directory.iterdir():
            if path.is_dir():
                _remove_except(path, keep)
            else:
                path.unlink()


def _nodes_are_ready() -> bool:
    nodes = control_plane.get("/api/v1/nodes").get("items", [])
    ready = set()
    for item in nodes:
        for condition in item["status"].get("conditions", []):
            if condition["type"] == "Ready" and condition["status"] == "True":
                ready.add(item["metadata"]["name"])
    return ready >= {worker.name for worker in NODES}


def _default_account_exists() -> bool:
    return bool(control_plane.get("/api/v1/namespaces/default/serviceaccounts/default"))
