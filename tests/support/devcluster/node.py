"""A worker node: containerd, kubelet and kube-proxy in a separate network and mount namespace.

Each worker has private directories at /run, /var/lib and /var/log. All components therefore use their default paths without
conflicts between workers, and the mounts of a worker's pods disappear with its last process.
"""

from functools import partial
from pathlib import Path

from . import cgroups, network, node_configuration, paths, pause, process
from .certificates import Authority
from .errors import ClusterError, run
from .gobuild import binaries, binary
from .network import Node

COMPONENTS = ("machine", "containerd", "kubelet", "kube-proxy")
_SOCKET = "/run/containerd/containerd.sock"

# Runs in the new namespaces: $1 is the name of the node, $2 contains its run and log directories, $3 is its library
# directory, $4 is the pause command. /run is mounted last because it hides $2.
_ENTER = """
mount -n --make-rshared /
hostname "$1"
mount -n --bind "$3" /var/lib
mount -n --bind "$2/log" /var/log
mount -n --bind "$2/run" /run
exec "$4"
"""


def component(node: Node, name: str) -> str:
    """Name of a process of a node; "machine" is the process that holds its namespaces."""
    return f"{node.name}.{name}"


def state(node: Node) -> Path:
    """The directory that contains /run and /var/log of the node."""
    return paths.STATE / node.name


def library(node: Node) -> Path:
    """The directory that is /var/lib of the node."""
    return paths.data() / node.name


def start_machine(node: Node) -> None:
    """Create the namespaces of the node."""
    for directory in (state(node) / "run", state(node) / "log", library(node)):
        directory.mkdir(parents=True, exist_ok=True)
    cgroups.create(f"{node.name}/system")
    process.start(
        component(node, "machine"),
        [
            *("unshare", "--mount", "--net", "--uts", "--propagation=private", "--"),
            *("/bin/sh", "-ec", _ENTER, "sh", node.name, state(node), library(node), binary("pause")),
        ],
        group=f"{node.name}/system",
    )


def connect(node: Node) -> None:
    """Connect the node to the network when its namespaces exist."""
    name = component(node, "machine")
    process.wait_until(name, partial(_is_namespace_ready, node))
    network.connect(node, _machine(node))


def start_containerd(node: Node) -> None:
    """Start the container runtime."""
    for file, text in node_configuration.containerd(node).items():
        paths.replace_file(state(node) / "run" / file, text)
    start_component(node, "containerd", ["containerd", "--config=/run/containerd/config.toml"])


def load_pause(node: Node) -> None:
    """Wait for the container runtime and import the pause image, which every pod uses."""
    process.wait_until(component(node, "containerd"), partial(_containerd_responds, node))
    clear(node)  # leftovers of a cluster that was killed
    if pause.image() not in ctr(node, "images", "list", "--quiet").split():
        ctr(node, "images", "import", pause.archive())


def write_credentials(node: Node, authority: Authority) -> None:
    """Write the certificates of kubelet and kube-proxy."""
    directory = state(node) / "run" / "kubernetes"
    certificate, key = authority.issue(f"system:node:{node.name}", "system:nodes", (node.name, node.address))
    paths.replace_file(directory / "ca.crt", authority.pem)
    paths.replace_file(directory / "kubelet.crt", certificate)
    paths.replace_file(directory / "kubelet.key", key, mode=0o600)
    paths.replace_file(
        directory / "kubelet.kubeconfig", authority.kubeconfig(f"system:node:{node.name}", "system:nodes"), mode=0o600
    )
    paths.replace_file(directory / "kube-proxy.kubeconfig", authority.kubeconfig("system:kube-proxy"), mode=0o600)


def start_kubelet(node: Node) -> None:
    """Start kubelet and kube-proxy; the API server must be up."""
    for file, text in node_configuration.kubernetes(node).items():
        paths.replace_file(state(node) / "run" / file, text)
    start_component(
        node,
        "kubelet",
        [
            "kubelet",
            "--config=/run/kubernetes/kubelet.json",
            "--kubeconfig=/run/kubernetes/kubelet.kubeconfig",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            "--v=1",
        ],
    )
    start_component(node, "kube-proxy", ["kube-proxy", "--config=/run/kubernetes/kube-proxy.json"])


def clear(node: Node) -> None:
    """Remove the pods of a stopped kubelet and their file systems, so that only images stay in the cache."""
    if process.pid(component(node, "containerd")) is None or not _containerd_responds(node):
        return
    if tasks := ctr(node, "tasks", "list", "--quiet").split():
        ctr(node, "tasks", "delete", "--force", *tasks)
    if containers := ctr(node, "containers", "list", "--quiet").split():
        ctr(node, "containers", "delete", *containers)
    if sandboxes := [line.split()[0] for line in ctr(node, "sandboxes", "list").splitlines()[1:]]:
        ctr(node, "sandboxes", "remove", "--force", *sandboxes)


def ctr(node: Node, *arguments: str | Path) -> str:
    """Run ctr, the client of containerd, on the node."""
    return run(binary("ctr"), f"--address={state(node)}{_SOCKET}", "--namespace=k8s.io", "--connect-timeout=1s", *arguments)


def run_inside(node: Node, *command: str, stdin: str | None = None) -> str:
    """Run a command in the namespaces of the node and return its output."""
    return run("nsenter", f"--target={_machine(node)}", "--mount", "--net", "--uts", *command, stdin=stdin)


def start_component(node: Node, name: str, command: list[str]) -> None:
    """Start a process of the node in its namespaces."""
    # containerd looks up runc and its shim on PATH; the links in /run of the host are not visible on the node.
    search = ":".join(sorted({str(path.parent) for path in binaries().values()}))
    process.start(
        component(node, name),
        ["env", f"PATH={search}:/usr/sbin:/usr/bin:/sbin:/bin", *command],
        group=f"{node.name}/system",
        inside=_machine(node),
    )


def _machine(node: Node) -> int:
    pid = process.pid(component(node, "machine"))
    if pid is None:
        raise process.failure(component(node, "machine"), "exited")
    return pid


def _is_namespace_ready(node: Node) -> bool:
    """Whether the machine process has finished its mounts and runs the pause command."""
    pid = process.pid(component(node, "machine"))
    return pid is not None and Path(f"/proc/{pid}/exe").resolve().name == "pause"


def _containerd_responds(node: Node) -> bool:
    try:
        ctr(node, "version")
    except ClusterError:
        return False
    return True
