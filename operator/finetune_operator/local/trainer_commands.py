"""Runs commands of the trainer in a subprocess, because the operator's package does not import torch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api import FineTuneJob
from finetune_operator.local.errors import LocalRunError
from finetune_operator.local.uris import resolve_file_uris

TRAINER_LIBRARIES = ("torch", "deepspeed", "transformers")


def require_trainer() -> None:
    """Raise LocalRunError if the trainer's libraries are not installed."""
    missing = [name for name in TRAINER_LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalRunError(
            f"running on this machine needs {', '.join(missing)}: install with pip install 'finetune-operator[trainer]'"
        )


def predict(model: str, inputs: Sequence[str], options: Sequence[str], cache: Path) -> int:
    """Print the predictions of an exported model and return the exit code.

    `model` is a directory or a URI. Raises LocalRunError if the trainer is not installed.
    """
    require_trainer()
    arguments = [model, *(f"--input={text}" for text in inputs), *options, f"--cache-dir={cache}"]
    return subprocess.run([sys.executable, "-m", "finetune_trainer.inference.predict", *arguments]).returncode


def preflight(job: FineTuneJob, base_directory: Path) -> str | None:
    """Check that this machine can read the job's data and write its results; returns the error, or None.

    Relative file:// URIs are resolved against `base_directory`.
    """
    with tempfile.TemporaryDirectory() as work:
        document = Path(work) / "train.json"
        document.write_text(json.dumps(resolve_file_uris(job.spec.train_document(), base_directory)))
        command = [sys.executable, "-m", "finetune_trainer.training.preflight", str(document), f"--cache-dir={work}/cache"]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 0:
        return None
    output = result.stdout.strip() or result.stderr.strip() or f"the check exited with code {result.returncode} and no message"
    return output.rpartition("\n")[2]
