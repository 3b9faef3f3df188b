"""The pause image: one static program that holds the namespaces of a pod."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from . import paths
from .gobuild import binaries, binary


def image() -> str:
    """Name of the image; the tag is the version of the program. It is imported, never pulled."""
    return f"devcluster.internal/pause:{binaries()['pause'].parent.name.removeprefix('pause-')}"


def archive() -> Path:
    """Write the image in the format of `docker save`. Returns its path."""
    layer = _tar({"pause": (binary("pause").read_bytes(), 0o755)})
    configuration = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [image()], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(configuration).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "layer.tar": layer,
    }
    path = paths.STATE / "pause.tar"
    path.write_bytes(_tar({name: (data, 0o644) for name, data in files.items()}))
    return path


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
