"""The tool's one kind of error, and the way to run a command that raises it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class ClusterError(Exception):
    """A step failed; the message is the one sentence a person needs, and names the log to read."""


def run(*command: str | Path, stdin: str | None = None, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """The output of a command that must succeed; `env` is added to the environment."""
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()[-1500:]
        raise ClusterError(f"`{' '.join(map(str, command))}` failed with status {done.returncode}: {said}")
    return done.stdout
