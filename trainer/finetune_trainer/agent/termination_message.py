"""The termination message: an `Outcome` as JSON that fits where kubelet looks for it."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.protocol.outcome import Outcome

MOST_BYTES = 4096  # kubelet cuts what is longer, and half an object is none


def bounded(outcome: Outcome) -> bytes:
    """The outcome as JSON of at most 4096 bytes: first the message is cut, then findings and metrics are left out,
    the last ones first."""
    while len(text := _json(outcome)) > MOST_BYTES:
        excess = len(text) - MOST_BYTES
        if len(outcome.message) > 256:
            # A character may take several bytes, so this cuts at most what must go and the loop sees to the rest.
            outcome = _shorter(outcome, max(255, len(outcome.message) - excess // 6 - 2))
        elif outcome.data is not None and outcome.data.findings:
            data = outcome.data.model_copy(update={"findings": outcome.data.findings[:-1]})
            outcome = outcome.model_copy(update={"data": data})
        elif outcome.metrics:
            outcome = outcome.model_copy(update={"metrics": dict(list(outcome.metrics.items())[:-1])})
        else:
            outcome = outcome.model_copy(update={"checkpoint": None, "model": None, "message": outcome.message[:255]})
    return text


def write(outcome: Outcome, path: Path | None) -> None:
    """Leave the message where the container's runtime reads it."""
    if path is not None:
        path.write_bytes(bounded(outcome))


def _shorter(outcome: Outcome, length: int) -> Outcome:
    return outcome.model_copy(update={"message": outcome.message[:length] + "…"})


def _json(outcome: Outcome) -> bytes:
    return outcome.model_dump_json(by_alias=True, exclude_none=True).encode()
