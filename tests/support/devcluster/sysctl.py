"""Kernel settings of the machine that kubelet changes: saved by `up` and restored by `down`."""

import json
from pathlib import Path

from . import paths

_FILE = paths.STATE / "sysctl.json"
_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def save() -> None:
    """Save the settings before the first kubelet starts."""
    values = {name: (Path("/proc/sys") / name).read_text().strip() for name in _SETTINGS}
    paths.replace_file(_FILE, json.dumps(values, indent=1))


def restore() -> None:
    """Restore the saved settings, if there are any."""
    if _FILE.exists():
        for name, value in json.loads(_FILE.read_text()).items():
            (Path("/proc/sys") / name).write_text(value)
