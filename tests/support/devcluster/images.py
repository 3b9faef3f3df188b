"""Builds the images of the project from its Dockerfile and pushes them to the cluster, without a public image registry.

The base image of the Dockerfile is built from Debian packages under the name that the Dockerfile uses, and the package
registry settings of this machine are passed as build arguments, so that the Dockerfile does not depend on either.
"""

import json
import os
import re
import subprocess
from pathlib import Path

from . import node, packages, paths, probe, process
from .errors import ClusterError, run
from .gobuild import binary
from .network import NODES
from .node_configuration import REGISTRY

BASE = "docker.io/library/debian:bookworm-slim"
_REPOSITORY = f"{REGISTRY}/finetune-operator"
# Not mounted over the bundle of the image, because then ca-certificates could not be installed in the image.
_BUNDLE, _BUNDLE_INSIDE = Path("/etc/ssl/certs/ca-certificates.crt"), "/run/build-certificates.crt"
_DEBIAN_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_SETTING_FILES = (Path("/etc/pip.conf"), Path("/etc/uv/uv.toml"))
_SETTING = re.compile(r"(PIP|UV)_\w*(INDEX|FIND_LINKS|HOST|PROXY|TIMEOUT|RETRIES)")

# buildah runs in a separate mount namespace with $1 as /var/lib, so that mounts of a killed build disappear with it.
_BUILDAH = """
mkdir -p "$1/run"
mount -n --bind "$1" /var/lib
mount -n -t tmpfs tmpfs /var/lib/run
printf '[network]\\nnetwork_config_dir = "/var/lib/run/cni"\\n' >/var/lib/run/containers.conf
shift
exec env CONTAINERS_CONF=/var/lib/run/containers.conf buildah --runroot /var/lib/run/containers "$@"
"""


def image(target: str, dockerfile: Path = paths.REPOSITORY / "Dockerfile") -> str:
    """Build, push and preload a target of the Dockerfile as far as needed. Returns the image reference for pods."""
    with paths.exclusive("images"):
        reference = push(build(target, dockerfile=dockerfile), target)
        preload(reference)
        return reference


def base_image() -> str:
    """Build and push the Debian base image, which has a shell. Returns the image reference for pods."""
    with paths.exclusive("images"):
        _build_base()
        return push(_buildah("images", "--quiet", "--no-trunc", BASE).strip(), "debian")


def build(target: str, tag: str | None = None, dockerfile: Path = paths.REPOSITORY / "Dockerfile") -> str:
    """Build a target and return the id of the image. Unchanged steps are cached."""
    _build_base()
    settings = registry_settings()
    # Build arguments are visible only in stages that declare them, so every stage declares all of them.
    declared = "".join(f"\nARG {name}" for name in settings)
    text = re.sub(r"(?mi)^FROM .*$", lambda stage: stage[0] + declared, dockerfile.read_text())
    prepared = paths.cache() / "containers" / "Dockerfile"
    paths.replace_file(prepared, text)
    volumes = {str(path): str(path) for path in (*_SETTING_FILES, *_local_indexes(settings)) if path.exists()}
    identifier = paths.cache() / "containers" / "image-id"
    log = paths.cache() / "logs" / f"image-{target}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["bud", "--layers", "--isolation=chroot", "--network=host", f"--target={target}"]
    arguments += [f"--build-arg={name}={value}" for name, value in settings.items()]
    arguments += [f"--volume={path}:{inside}:ro" for path, inside in (volumes | {str(_BUNDLE): _BUNDLE_INSIDE}).items()]
    arguments += [f"--file={prepared}", f"--iidfile={identifier}", f"--tag={tag or f'finetune-operator/{target}'}"]
    with log.open("w") as output:
        done = subprocess.run(
            [*_prefix(), *arguments, str(dockerfile.parent)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ClusterError(f"building the image {target} failed (log: {log}); its last lines:\n{last}")
    return identifier.read_text().strip().removeprefix("sha256:")


def push(identifier: str, name: str) -> str:
    """Push an image to the registry of the cluster, unless it is there. The tag is part of the image id, so it never moves."""
    if process.pid("registry") is None:
        raise ClusterError("the registry is not running: run `make cluster-up`.")
    identifier = identifier.removeprefix("sha256:")
    reference = f"{_REPOSITORY}/{name}:{identifier[:16]}"
    present = probe.fetch(f"http://{_REPOSITORY.replace('/', '/v2/', 1)}/{name}/tags/list")
    if present is None or identifier[:16] not in json.loads(present)["tags"]:
        # The fastest zstd level, because compression dominates the push of an image with torch.
        _prune()
        _buildah(
            "push",
            "--quiet",
            "--tls-verify=false",
            "--compression-format=zstd",
            "--compression-level=1",
            identifier,
            f"docker://{reference}",
        )
    return reference


def preload(reference: str) -> None:
    """Pull an image on every node now: this takes two minutes for torch, which must not count against test timeouts."""
    missing = [worker for worker in NODES if reference not in node.ctr(worker, "images", "list", "--quiet").split()]
    pods = [f"preload-{worker.name}" for worker in missing]
    for pod, worker in zip(pods, missing, strict=True):
        overrides = json.dumps({"spec": {"nodeName": worker.name, "terminationGracePeriodSeconds": 0}})
        _kubectl("run", pod, f"--image={reference}", "--restart=Never", f"--overrides={overrides}", "--command", "--", "true")
    for pod in pods:
        _kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=15m")
        _kubectl("delete", f"pod/{pod}")


def registry_settings() -> dict[str, str]:
    """The environment variables that configure package registries and trusted certificates for pip and uv."""
    trust = dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), _BUNDLE_INSIDE)
    return {name: value for name, value in os.environ.items() if _SETTING.match(name)} | trust


def _local_indexes(settings: dict[str, str]) -> list[Path]:
    """Directories in the settings, such as a directory of wheels."""
    words = (word for value in settings.values() for word in value.split())
    return [Path(word) for word in words if word.startswith("/") and Path(word).is_dir()]


def _build_base() -> None:
    packages.require(*packages.IMAGES)
    if _buildah("images", "--quiet", "--filter", f"reference={BASE}").strip():
        return
    print("  building the base image", flush=True)
    archive = paths.cache() / "containers" / "base.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    sources = [path for path in _DEBIAN_SOURCES if path.exists()][:1]
    trim = 'rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale'
    run("mmdebstrap", "--mode=root", "--variant=minbase", f"--customize-hook={trim}", "bookworm", archive, *sources)
    container = _buildah("from", "scratch").strip()
    _buildah("add", "--quiet", container, str(archive), "/")
    search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    _buildah("config", "--cmd=bash", f"--env=PATH={search}", container)
    _buildah("commit", "--quiet", "--rm", container, BASE)
    archive.unlink()


def _prune() -> None:
    """Remove build steps that no current image uses; an outdated torch layer has 6 GB."""
    # Its exit status is ignored, because it fails when images depend on each other, although it removes all of them.
    subprocess.run([*_prefix(), "rmi", "--prune"], stdin=subprocess.DEVNULL, capture_output=True)


def _kubectl(*arguments: str) -> None:
    run(binary("kubectl"), f"--kubeconfig={paths.KUBECONFIG}", *arguments)


def _prefix() -> list[str]:
    storage = paths.cache() / "containers" / "lib"
    storage.mkdir(parents=True, exist_ok=True)
    return ["unshare", "--mount", "--propagation=private", "--", "/bin/sh", "-ec", _BUILDAH, "sh", str(storage)]


def _buildah(*arguments: str) -> str:
    return run(*_prefix(), *arguments)
