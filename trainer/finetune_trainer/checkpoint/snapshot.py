"""Snapshots of the training state in host memory, copied while training continues.

The tensors that make a checkpoint large, weights and optimizer state, change only in the optimizer step. So `take` copies at
once only the tensors that may change earlier, and leaves the others to a thread that copies them during the next forward and
backward passes. The optimizer step waits until the thread is done; this wait, if any, is all that training loses.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from enum import Enum
from typing import Any

import torch

_SMALL_BYTES = 1 << 16
_IMMUTABLE = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device, torch.Size)


class HostMemory:
    """CPU tensors that hold one snapshot and are reused for the next one; pinned where they are copied from a GPU."""

    def __init__(self) -> None:
        self.stalled = 0.0  # seconds that optimizer steps have waited for the current snapshot
        self._buffers: list[torch.Tensor] = []
        self._buffers_used = 0
        self._pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._copies: dict[tuple[Any, ...], torch.Tensor] = {}
        self._changing: set[int] = set()
        self._copied = threading.Event()
        self._copied.set()
        self._failure: Exception | None = None

    def guard(self, optimizer: torch.optim.Optimizer) -> None:
        """Make every future step of `optimizer` wait until a snapshot in progress has all its copies."""
        optimizer.register_step_pre_hook(lambda *_: self._wait_before_step())

    def begin(self, changing: Iterable[torch.Tensor] = ()) -> None:
        """Start a snapshot. The previous one must have been written to disk, because its memory is reused.

        `changing` are tensors that a forward pass may change, such as running means; they are copied at once.
        """
        self._copied.wait()
        self._buffers_used, self._failure, self.stalled = 0, None, 0.0
        self._changing = {tensor.data_ptr() for tensor in changing}

    def take(self, state: Any) -> Any:
        """A copy of the structure with CPU tensors, whose content is complete after `wait`.

        A tensor that is in two places of `state` is one tensor in the result too. Other objects are copied at once.
        """
        match state:
            case Enum():
                # Python up to 3.11.3 pickles a member as a call of getattr, which a weights-only load rejects.
                return state.value
            case torch.Tensor():
                return self._take_tensor(state.detach())
            case OrderedDict():
                copied = OrderedDict((key, self.take(value)) for key, value in state.items())
                # A module's state dict has the versions of its layers as an attribute.
                copied.__dict__.update(copy.deepcopy(vars(state)))
                return copied
            case dict():
                return {key: self.take(value) for key, value in state.items()}
            case list():
                return [self.take(value) for value in state]
            case tuple() if type(state) is tuple:
                return tuple(self.take(value) for value in state)
            case _:
                return state if isinstance(state, _IMMUTABLE) else copy.deepcopy(state)

    def start(self) -> None:
        """Start copying the tensors that `take` deferred. The caller may do anything but an optimizer step meanwhile."""
        self._copied.clear()
        ready = None
        if any(source.is_cuda for source, _ in self._pending):
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no annotation here
            ready.record()
        threading.Thread(target=self._copy, args=(ready,), name="checkpoint-snapshot", daemon=True).start()

    def wait(self) -> None:
        """Return when the snapshot is complete; raises the error of a copy that failed."""
        self._copied.wait()
        if self._failure:
            raise self._failure

    def _wait_before_step(self) -> None:
        if not self._copied.is_set():
            started = time.monotonic()
            self._copied.wait()
            self.stalled += time.monotonic() - started

    def _take_tensor(self, source: torch.Tensor) -> torch.Tensor:
        if source.nbytes <= _SMALL_BYTES or source.data_ptr() in self._changing:
            return source.to("cpu", copy=True)
        key = (source.data_ptr(), source.dtype, source.shape, source.stride())
        if key not in self._copies:
            self._copies[key] = self._next_buffer(source)
            self._pending.append((source, self._copies[key]))
        return self._copies[key]

    def _next_buffer(self, source: torch.Tensor) -> torch.Tensor:
        index = self._buffers_used
        self._buffers_used += 1
        if index < len(self._buffers):
            buffer = self._buffers[index]
            if (buffer.shape, buffer.dtype) == (source.shape, source.dtype):
                return buffer
        # Every save of a run visits the state in one order, so a buffer that does not fit means that the state changed.
        del self._buffers[index:]
        self._buffers.append(torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda))
        return self._buffers[index]

    def _copy(self, ready: torch.cuda.Event | None) -> None:
        try:
            if ready is None:
                for source, target in self._pending:
                    target.copy_(source)
            else:
                self._copy_from_gpu(ready)
        except Exception as error:
            self._failure = error
        finally:
            self._pending, self._copies = [], {}
            self._copied.set()

    def _copy_from_gpu(self, ready: torch.cuda.Event) -> None:
        device = next(source.device for source, _ in self._pending if source.is_cuda)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no annotation here
        with torch.cuda.device(device), torch.cuda.stream(stream):
            stream.wait_event(ready)
            for source, target in self._pending:
                target.copy_(source, non_blocking=source.is_cuda)
        stream.synchronize()
