"""Recognizes errors of a volume that is full, by their messages, and names the field that sets its size.

The errors come from many libraries, each with a class of its own, but the words are those of the operating system. Does not
import torch, whose import fails if the volume of temporary files is full.
"""

from __future__ import annotations

import re

from finetune_trainer.protocol.outcome import Reason

SCRATCH_ADVICE = "raise spec.workers.scratch.size, or make room on the disk of /work"

_FULL = re.compile(r"no space left on device|no usable temporary directory", re.IGNORECASE)
_SHARED_MEMORY = re.compile(r"/dev/shm|shared memory", re.IGNORECASE)
_BUS_ERROR = re.compile(r"signal: bus error", re.IGNORECASE)  # of a data loader's process


def classify_full_volume(text: str) -> tuple[Reason, str] | None:
    """The reason and the message for the text of an error; None if no volume is full."""
    is_full = _FULL.search(text) is not None
    if _SHARED_MEMORY.search(text) is not None and (is_full or _BUS_ERROR.search(text) is not None):
        return Reason.OUT_OF_MEMORY, f"/dev/shm is full: raise spec.workers.sharedMemory ({text})"
    return (Reason.CRASHED, f"the disk is full: {SCRATCH_ADVICE} ({text})") if is_full else None
