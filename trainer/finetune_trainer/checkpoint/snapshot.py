"""Copies training state to host memory while training goes on.

The tensors that make a checkpoint large, weights and optimizer state, change in one place only: the optimizer's step. So
`take` copies at once only what may change earlier, and leaves the rest to a thread that copies while the next forward and
backward passes run; the optimizer's step waits until it is through. What training loses is that wait, if there is one.
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
    """Host tensors that hold one snapshot, used again for the next one; pinned where they are copied from a GPU."""

    def __init__(self) -> None:
        self.stalled = 0.0  # seconds that optimizer steps waited for the present snapshot
        self._buffers: list[torch.Tensor] = []
        self._used = 0
        self._pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._known: dict[tuple[Any, ...], torch.Tensor] = {}
        self._changing: set[int] = set()
        self._copied = threading.Event()
        self._copied.set()
        self._failure: Exception | None = None

    def guard(self, optimizer: torch.optim.Optimizer) -> None:
        """From now on a step of `optimizer` waits until a snapshot under way has its copies."""
        optimizer.register_step_pre_hook(lambda *_: self._before_step())

    def begin(self, changing: Iterable[torch.Tensor] = ()) -> None:
        """Starts a snapshot; the one before must have been written, as its memory is used again.

        `changing` are tensors that already a forward pass may alter, such as running means; they are copied at once.
        """
        self._copied.wait()
        self._used, self._failure, self.stalled = 0, None, 0.0
        self._changing = {tensor.data_ptr() for tensor in changing}

    def take(self, state: Any) -> Any:
        """The same structure with tensors on the host, whose content is complete after `wait`.

        One tensor in two places of `state` is one in the result as well. Objects other than tensors are copied at once.
        """
        match state:
            case Enum():
                # Python up to 3.11.3 pickles a member as a call of getattr, which no weights-only load permits.
                return state.value
            case torch.Tensor():
                return self._tensor(state.detach())
            case OrderedDict():
                copied = OrderedDict((key, self.take(value)) for key, value in state.items())
                # A module's state carries versions of its layers beside the entries.
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
        """Starts copying what `take` left; the caller may go on with anything but an optimizer step."""
        self._copied.clear()
        ready = None
        if any(source.is_cuda for source, _ in self._pending):
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            ready.record()
        threading.Thread(target=self._copy, args=(ready,), name="checkpoint-snapshot", daemon=True).start()

    def wait(self) -> None:
        """Returns when the snapshot is complete; raises what went wrong with it."""
        self._copied.wait()
        if self._failure:
            raise self._failure

    def _before_step(self) -> None:
        if not self._copied.is_set():
            started = time.monotonic()
            self._copied.wait()
            self.stalled += time.monotonic() - started

    def _tensor(self, source: torch.Tensor) -> torch.Tensor:
        if source.nbytes <= _SMALL_BYTES or source.data_ptr() in self._changing:
            return source.to("cpu", copy=True)
        key = (source.data_ptr(), source.dtype, source.shape, source.stride())
        if key not in self._known:
            self._known[key] = self._buffer(source)
            self._pending.append((source, self._known[key]))
        return self._known[key]

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        at, self._used = self._used, self._used + 1
        if at < len(self._buffers) and (self._buffers[at].shape, self._buffers[at].dtype) == (like.shape, like.dtype):
            return self._buffers[at]
        # The order is that of the state, which is the same at every save of a run.
        del self._buffers[at:]
        self._buffers.append(torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda))
        return self._buffers[at]

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
            self._pending, self._known = [], {}
            self._copied.set()

    def _copy_from_gpu(self, ready: torch.cuda.Event) -> None:
        device = next(source.device for source, _ in self._pending if source.is_cuda)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        with torch.cuda.device(device), torch.cuda.stream(stream):
            stream.wait_event(ready)
            for source, target in self._pending:
                target.copy_(source, non_blocking=source.is_cuda)
        stream.synchronize()
