"""kwok plays the kubelets of nodes that do not exist: pods on them run at once and terminate when they are deleted."""

import json
from pathlib import Path

from .errors import run
from .gobuild import MODULES


def stages() -> list[Path]:
    """kwok's default stages for nodes and pods; they are part of the module, not of the command."""
    [module] = [module for module in MODULES if module.name == "kwok"]
    downloaded = json.loads(run("go", "mod", "download", "-json", "sigs.k8s.io/kwok", cwd=module.source))
    directory = Path(downloaded["Dir"]) / "kustomize" / "stage"
    files = [path for kind in ("node", "pod") for path in sorted((directory / kind / "fast").glob("*.yaml"))]
    return [path for path in files if path.name != "kustomization.yaml"]
