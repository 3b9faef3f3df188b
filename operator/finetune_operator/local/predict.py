"""`finetune predict`: tries a model on this machine, in a process of the trainer's, which knows torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.local.runner import require_trainer


def predict(model: str, inputs: Sequence[str], options: Sequence[str], cache: Path) -> int:
    """Prints what the model makes of the inputs; the exit code. Raises RunRefused if the trainer is not installed."""
    require_trainer()
    given = [f"--input={word}" for word in inputs]
    command = [sys.executable, "-m", "finetune_trainer.inference.predict", model, *given, *options, f"--cache-dir={cache}"]
    return subprocess.run(command).returncode
