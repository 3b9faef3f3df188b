"""Classifies the exception that ended a rank: the reason that agent and operator act on, and one sentence."""

from __future__ import annotations

import re

import torch
import torch.distributed as dist

from finetune_trainer.distributed.preemption import Interrupted
from finetune_trainer.protocol.full_volumes import classify_full_volume
from finetune_trainer.protocol.outcome import UNEXPECTED_ERROR, Reason, TrainerError

MAX_MESSAGE_CHARACTERS = 2000  # the rest of the termination message needs room too

_BUGS = (
    TypeError, AttributeError, NameError, LookupError, AssertionError, ImportError, NotImplementedError, RecursionError,
)  # fmt: skip
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_LOST_PEER = re.compile(
    r"connection (closed|reset|refused|timed out)|closed by peer|broken pipe|timed out waiting|socket time ?out|gloo|nccl"
    r"|wait timeout|tcpstore|rendezvous",
    re.IGNORECASE,
)
_MEMORY_ADVICE = (
    "lower spec.training.microBatchSize or spec.data.maxLength, set spec.training.gradientCheckpointing: true, raise "
    "spec.deepspeed.zeroStage, or set spec.deepspeed.offload"
)


def classify_error(error: BaseException) -> tuple[Reason, str]:
    """The reason and the message for the exception that ended a rank."""
    if isinstance(error, TrainerError | Interrupted):
        return error.reason, _shorten(str(error))
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    # First, because NCCL reports a full /dev/shm in the same exception as a lost connection.
    if full_volume := classify_full_volume(text):
        return full_volume[0], _shorten(full_volume[1])
    if _is_out_of_memory(error, text):
        first_line = str(error).partition("\n")[0]
        return Reason.OUT_OF_MEMORY, _shorten(f"out of memory ({first_line or 'on the host'}): {_MEMORY_ADVICE}")
    if _is_lost_peer(error, text):
        return Reason.RENDEZVOUS_FAILED, _shorten(f"the connection to the other ranks failed: {text}")
    if isinstance(error, _BUGS):
        return Reason.INTERNAL_ERROR, _shorten(f"a bug, the traceback is in the log: {text}")
    return Reason.CRASHED, _shorten(f"{UNEXPECTED_ERROR}: {text}")


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(text) is not None


def _is_lost_peer(error: BaseException, text: str) -> bool:
    if isinstance(error, dist.DistError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, RuntimeError) and _LOST_PEER.search(text) is not None


def _shorten(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else line[: MAX_MESSAGE_CHARACTERS - 1] + "…"
