"""Builds the project's images from its own Dockerfile and brings them to the cluster, without a registry of the world.

The base image the Dockerfile names is made here from Debian packages under the same name, and the machine's settings for
package registries reach the build as arguments, so that the Dockerfile itself knows nothing of either.
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
# Beside the image's own bundle and not over it, which installing ca-certificates in the image would trip on.
_BUNDLE, _BUNDLE_INSIDE = Path("/etc/ssl/certs/ca-certificates.crt"), "/run/build-certificates.crt"
_DEBIAN_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_SETTING_FILES = (Path("/etc/pip.conf"), Path("/etc/uv/uv.toml"))
_SETTING = re.compile(r"(PIP|UV)_\w*(INDEX|FIND_LINKS|HOST|PROXY|TIMEOUT|RETRIES)")

# buildah runs in a mount namespace of its own, where $1 is its /var/lib: whatever a killed build had mounted is gone with it.
_BUILDAH = """
mkdir -p "$1/run"
mount -n --bind "$1" /var/lib
mount -n -t tmpfs tmpfs /var/lib/run
printf '[network]\\nnetwork_config_dir = "/var/lib/run/cni"\\n' >/var/lib/run/containers.conf
shift
exec env CONTAINERS_CONF=/var/lib/run/containers.conf buildah --runroot /var/lib/run/containers "$@"
"""


def image(target: str, dockerfile: Path = paths.REPOSITORY / "Dockerfile") -> str:
    """The name under which pods of the cluster find a target of the Dockerfile; built, pushed and pulled as far as needed."""
    with paths.exclusive("images"):
        reference = push(build(target, dockerfile=dockerfile), target)
        preload(reference)
        return reference


def base_image() -> str:
    """The name under which pods find plain Debian: a shell to test with."""
    with paths.exclusive("images"):
        _make_base()
        return push(_buildah("images", "--quiet", "--no-trunc", BASE).strip(), "debian")


def build(target: str, tag: str | None = None, dockerfile: Path = paths.REPOSITORY / "Dockerfile") -> str:
    """Build a target (unchanged steps come from the cache in a moment) and return the image's id."""
    _make_base()
    settings = registry_settings()
    # An argument counts only where it is declared, so declare each at the head of every stage.
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
    """Bring an image to the cluster's registry, unless it is there, under a tag that never changes its meaning."""
    if process.pid("registry") is None:
        raise ClusterError("the registry is not running: run `make cluster-up`.")
    identifier = identifier.removeprefix("sha256:")
    reference = f"{_REPOSITORY}/{name}:{identifier[:16]}"
    present = probe.fetch(f"http://{_REPOSITORY.replace('/', '/v2/', 1)}/{name}/tags/list")
    if present is None or identifier[:16] not in json.loads(present)["tags"]:
        # zstd at its fastest: packing is most of the time an image with torch takes to reach a node.
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
    """Have every node pull an image now: two minutes for torch, which no test's clock should count."""
    lacking = [worker for worker in NODES if reference not in node.ctr(worker, "images", "list", "--quiet").split()]
    pods = [f"preload-{worker.name}" for worker in lacking]
    for pod, worker in zip(pods, lacking, strict=True):
        overrides = json.dumps({"spec": {"nodeName": worker.name, "terminationGracePeriodSeconds": 0}})
        _kubectl("run", pod, f"--image={reference}", "--restart=Never", f"--overrides={overrides}", "--command", "--", "true")
    for pod in pods:
        _kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=15m")
        _kubectl("delete", f"pod/{pod}")


def registry_settings() -> dict[str, str]:
    """What the environment tells pip and uv about registries, and the certificates to trust."""
    trust = dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), _BUNDLE_INSIDE)
    return {name: value for name, value in os.environ.items() if _SETTING.match(name)} | trust


def _local_indexes(settings: dict[str, str]) -> list[Path]:
    """Directories that a setting names, such as one of wheels."""
    words = (word for value in settings.values() for word in value.split())
    return [Path(word) for word in words if word.startswith("/") and Path(word).is_dir()]


def _make_base() -> None:
    packages.require(*packages.IMAGES)
    if _buildah("images", "--quiet", "--filter", f"reference={BASE}").strip():
        return
    print("  making the base image", flush=True)
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
    """Drop the steps that no current image is made of; a superseded layer of torch is 6 GB."""
    # It fails after removing everything when one thing hung on another, so its status says nothing.
    subprocess.run([*_prefix(), "rmi", "--prune"], stdin=subprocess.DEVNULL, capture_output=True)


def _kubectl(*arguments: str) -> None:
    run(binary("kubectl"), f"--kubeconfig={paths.KUBECONFIG}", *arguments)


def _prefix() -> list[str]:
    storage = paths.cache() / "containers" / "lib"
    storage.mkdir(parents=True, exist_ok=True)
    return ["unshare", "--mount", "--propagation=private", "--", "/bin/sh", "-ec", _BUILDAH, "sh", str(storage)]


def _buildah(*arguments: str) -> str:
    return run(*_prefix(), *arguments)
