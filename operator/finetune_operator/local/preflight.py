"""Tries on this machine what a run would need first; in a process of its own, as the trainer is another program."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from finetune_operator.api import FineTuneJob
from finetune_operator.local.uris import localized


def preflight(job: FineTuneJob, here: Path) -> str | None:
    """What is wrong with the job's data or storage as seen from here, in one sentence; None if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "train.json"
        document.write_text(json.dumps(localized(job.spec.train_spec().document(), here)))
        command = [sys.executable, "-m", "finetune_trainer.training.preflight", str(document), f"--cache-dir={folder}/cache"]
        done = subprocess.run(command, capture_output=True, text=True)
    said = (done.stdout.strip() or done.stderr.strip() or "it ended without a word").rpartition("\n")[2]
    return said if done.returncode else None
