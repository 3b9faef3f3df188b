"""The outcome that a rank reports when it fails."""

from __future__ import annotations

import sys

import pytest

from finetune_trainer.protocol.outcome import Reason
from finetune_trainer.training import __main__ as rank


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            FileNotFoundError(2, "No usable temporary directory found in ['/work/tmp', '/tmp']"),
            "the disk is full: raise spec.workers.scratch.size",
        ),
        (
            ValueError("a broken installation"),
            "an unexpected error, the traceback is in the log: ValueError: a broken installation",
        ),
    ],
)
def test_failed_import_of_torch_is_reported(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finetune_trainer.training.failures", None)  # importing it fails
    outcome = rank._failure_outcome(error, 3)
    assert (outcome.reason, outcome.rank) == (Reason.CRASHED, 3)
    assert outcome.message.startswith(message)
