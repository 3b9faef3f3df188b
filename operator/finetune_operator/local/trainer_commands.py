"""Runs commands of the trainer in a subprocess, because the operator's package does not import torch."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune_operator.api import FineTuneJob
from finetune_operator.local.errors import LocalRunError
from finetune_operator.local.uris import resolve_file_uris

TRAINER_LIBRARIES = ("torch", "deepspeed", "transformers")


class DataCheck(NamedTuple):
    """The result of a check of a job's data."""

    findings: list[str]
    error: str | None
    """The sentence that ends the check; None if the data can be trained on."""


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


def preview_data(job: FineTuneJob, base_directory: Path, options: Sequence[str], cache: Path) -> int:
    """Print what the job would train on and return the exit code; raises LocalRunError if the trainer is not installed.

    Relative file:// URIs are resolved against `base_directory`.
    """
    require_trainer()
    with _train_document(job, base_directory) as document:
        return subprocess.run(_preview_command(job, document, options, cache)).returncode


def check_data(job: FineTuneJob, base_directory: Path, cache: Path) -> DataCheck:
    """Prepare all data of the job as a run does; raises LocalRunError if the trainer is not installed."""
    require_trainer()
    with _train_document(job, base_directory) as document:
        command = _preview_command(job, document, ["--all", "--rows=0", "--output=findings"], cache)
        result = subprocess.run(command, capture_output=True, text=True)
    findings = result.stdout.splitlines()
    return DataCheck(findings, None if result.returncode == 0 else _last_line(result.stderr, result.returncode))


def _preview_command(job: FineTuneJob, document: Path, options: Sequence[str], cache: Path) -> list[str]:
    arguments = [str(document), f"--name={job.metadata.name}", f"--cache-dir={cache}", *options]
    return [sys.executable, "-m", "finetune_trainer.preview", *arguments]


def preflight(job: FineTuneJob, base_directory: Path) -> str | None:
    """Check that this machine can read the job's data and write its results; returns the error, or None.

    Relative file:// URIs are resolved against `base_directory`.
    """
    with _train_document(job, base_directory) as document:
        cache = document.parent / "cache"
        command = [sys.executable, "-m", "finetune_trainer.training.preflight", str(document), f"--cache-dir={cache}"]
        result = subprocess.run(command, capture_output=True, text=True)
    return None if result.returncode == 0 else _last_line(result.stdout.strip() or result.stderr, result.returncode)


@contextlib.contextmanager
def _train_document(job: FineTuneJob, base_directory: Path) -> Iterator[Path]:
    """A temporary file with the trainer's document, with absolute file:// URIs."""
    with tempfile.TemporaryDirectory() as work:
        document = Path(work) / "train.json"
        document.write_text(json.dumps(resolve_file_uris(job.spec.train_document(), base_directory)))
        yield document


def _last_line(output: str, exit_code: int) -> str:
    return output.strip().rpartition("\n")[2] or f"the check exited with code {exit_code} and no message"
