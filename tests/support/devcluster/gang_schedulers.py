"""The published schemas of PodGroups of gang schedulers, from Go modules that Kueue requires too."""

import re
from pathlib import Path
from typing import Any

import yaml

from . import gobuild
from .gobuild import KUEUE_MODULE

_FIELD = re.compile(r'^\t\w+\s+(\S+)\s+`json:"(\w+)')


def coscheduling_definition() -> dict[str, Any]:
    """The custom resource definition of kubernetes-sigs/scheduler-plugins."""
    module = gobuild.module_directory(KUEUE_MODULE, "sigs.k8s.io/scheduler-plugins")
    path = module / "config/crd/bases/scheduling.x-k8s.io_podgroups.yaml"
    definition: dict[str, Any] = yaml.safe_load(path.read_text())
    return definition


def volcano_fields() -> dict[str, str]:
    """The Go types of the fields in spec of Volcano's PodGroup, whose module has no custom resource definition."""
    module = gobuild.module_directory(KUEUE_MODULE, "volcano.sh/apis")
    lines = _struct(module / "pkg/apis/scheduling/v1beta1/types.go", "PodGroupSpec")
    return {match[2]: match[1] for line in lines if (match := _FIELD.match(line))}


def _struct(path: Path, name: str) -> list[str]:
    source = path.read_text()
    return source.split(f"\ntype {name} struct {{\n")[1].split("\n}\n")[0].splitlines()
