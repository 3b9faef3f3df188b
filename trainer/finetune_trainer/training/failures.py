"""What an exception means for the run: one of the reasons the agent and the operator act upon, and one sentence."""

from __future__ import annotations

import re

import torch
import torch.distributed as dist

from finetune_trainer.distributed.preemption import Interrupted
from finetune_trainer.protocol.outcome import Reason, TrainerError

LONGEST_MESSAGE = 2000  # characters; the rest of the termination message needs room too

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


def explain(error: BaseException) -> tuple[Reason, str]:
    """Reason and sentence for what ended a rank."""
    if isinstance(error, TrainerError | Interrupted):
        return error.reason, _shortened(str(error))
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(text)
    ):
        first = str(error).partition("\n")[0]
        return Reason.OUT_OF_MEMORY, _shortened(f"out of memory ({first or 'on the host'}): {_MEMORY_ADVICE}")
    if isinstance(error, dist.DistError | ConnectionError | TimeoutError) or (
        isinstance(error, RuntimeError) and _LOST_PEER.search(text)
    ):
        return Reason.RENDEZVOUS_FAILED, _shortened(f"lost the other ranks, or never found them: {text}")
    if isinstance(error, _BUGS):
        return Reason.INTERNAL_ERROR, _shortened(f"a bug, the traceback is in the log: {text}")
    return Reason.CRASHED, _shortened(f"an unexpected error, the traceback is in the log: {text}")


def _shortened(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
