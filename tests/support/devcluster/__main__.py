"""``python -m devcluster build|up|down|status|clean``."""

import os
import sys

from . import cluster, gobuild, network, packages, paths, process, services
from .errors import ClusterError


def build() -> None:
    """Install and compile what the cluster needs, without starting it."""
    packages.require(*packages.RUN)
    services.check()
    gobuild.build()


def up() -> None:
    """Start the cluster, unless it is up."""
    if not cluster.up():
        print("  cluster is up")
    print(f"  export KUBECONFIG={paths.KUBECONFIG} PATH={paths.COMMANDS}:$PATH")


def status() -> None:
    """Print each component with its pid and log; the exit status says whether all is well."""
    for name in dict.fromkeys((*cluster.components(), *process.names())):
        pid = process.pid(name)
        print(f"  {name:26} {f'pid {pid}' if pid else 'not running':14} {process.log_path(name)}")
    healthy = cluster.is_up()
    print(f"  cluster is {'up' if healthy else 'not up'}")
    if not healthy:
        sys.exit(1)


COMMANDS = {"build": build, "up": up, "down": cluster.down, "status": status, "clean": cluster.clean}


def main() -> None:
    """Run the command named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m devcluster {'|'.join(COMMANDS)}")
    if os.geteuid() != 0:
        sys.exit("devcluster: the cluster makes namespaces and mounts, so it must be started as root.")
    network.bypass_proxies()
    try:
        COMMANDS[sys.argv[1]]()
    except ClusterError as error:
        sys.exit(f"devcluster: {error}")


if __name__ == "__main__":
    main()
