"""The termination message: an `Outcome` as JSON within the size limit of the kubelet."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.protocol.outcome import Outcome

MAX_BYTES = 4096  # the kubelet truncates longer messages, and truncated JSON is unreadable


def encode_bounded(outcome: Outcome) -> bytes:
    """The outcome as JSON of at most 4096 bytes.

    If it is longer, first the message is shortened; then findings and metrics are dropped, the last ones first; and finally the
    URIs of checkpoint and model.
    """
    while len(text := _encode(outcome)) > MAX_BYTES:
        excess = len(text) - MAX_BYTES
        if len(outcome.message) > 256:
            # A character may take up to six bytes, so this never removes too much; the loop removes the rest.
            outcome = _shorten(outcome, max(255, len(outcome.message) - excess // 6 - 2))
        elif outcome.data is not None and outcome.data.findings:
            data = outcome.data.model_copy(update={"findings": outcome.data.findings[:-1]})
            outcome = outcome.model_copy(update={"data": data})
        elif outcome.metrics:
            outcome = outcome.model_copy(update={"metrics": dict(list(outcome.metrics.items())[:-1])})
        else:
            outcome = outcome.model_copy(
                update={"checkpoint": None, "model": None, "resumed": None, "message": outcome.message[:255]}
            )
    return text


def write(outcome: Outcome, path: Path | None) -> None:
    """Write the message to the file that the container runtime reads; does nothing without a path."""
    if path is not None:
        path.write_bytes(encode_bounded(outcome))


def _shorten(outcome: Outcome, length: int) -> Outcome:
    return outcome.model_copy(update={"message": outcome.message[:length] + "…"})


def _encode(outcome: Outcome) -> bytes:
    return outcome.model_dump_json(by_alias=True, exclude_none=True).encode()
