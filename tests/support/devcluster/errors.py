"""ClusterError, and `run`, which raises it when a command fails."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class ClusterError(Exception):
    """A step failed; the message is one sentence with the cause and the path of the log."""


def run(*command: str | Path, stdin: str | None = None, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output. `env` is added to the environment.

    Raises ClusterError with the end of the output if the command fails.
    """
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        output = (done.stderr + done.stdout).strip()[-1500:]
        raise ClusterError(f"`{' '.join(map(str, command))}` failed with status {done.returncode}: {output}")
    return done.stdout
