"""``python -m devcluster build|up|down|status|clean``."""

import os
import sys

from . import cluster, gobuild, network, packages, paths, process, services
from .errors import ClusterError


def build() -> None:
    """Install and compile the commands of the cluster, without starting it."""
    packages.require(*packages.RUN)
    services.check()
    gobuild.build()


def up() -> None:
    """Start the cluster, unless it is running."""
    if not cluster.up():
        print("  cluster is up")
    print(f"  export KUBECONFIG={paths.KUBECONFIG} PATH={paths.COMMANDS}:$PATH")


def status() -> None:
    """Print each component with its pid and log; the exit status is 1 if the cluster is not healthy."""
    for name in dict.fromkeys((*cluster.components(), *process.names())):
        pid = process.pid(name)
        state = f"pid {pid}" if pid else "not running"
        print(f"  {name:26} {state:14} {process.log_path(name)}")
    if not cluster.is_up():
        print("  cluster is not up")
        sys.exit(1)
    print("  cluster is up")


COMMANDS = {"build": build, "up": up, "down": cluster.down, "status": status, "clean": cluster.clean}


def main() -> None:
    """Run the command given on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m devcluster {'|'.join(COMMANDS)}")
    if os.geteuid() != 0:
        sys.exit("devcluster: the cluster creates namespaces and mounts: start it as root.")
    network.bypass_proxies()
    try:
        COMMANDS[sys.argv[1]]()
    except ClusterError as error:
        sys.exit(f"devcluster: {error}")


if __name__ == "__main__":
    main()
