"""The connection to the store that agent 0 hosts: every request is answered within a time limit, or the store is lost."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import TypeVar

# torch documents this import, but its type stubs mark the name as private.
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from finetune_trainer.agent.host_address import HostAddress

Answer = TypeVar("Answer")


class StoreLostError(Exception):
    """The store does not answer: its host has died, or has not started yet."""


class Store:
    """A TCPStore, hosted by this process or by another.

    The client library waits forever for a host that vanished without closing its connections, so each request runs in a thread
    that can be abandoned.
    """

    def __init__(
        self, host: str, port: int, is_host: bool, timeout: float, watch: Callable[[str, str], HostAddress] = HostAddress
    ) -> None:
        """Connect to host:port, or host the store on that port; raises StoreLostError."""
        self._timeout = timeout
        self._host_address: HostAddress | None = None
        if not is_host:
            self._host_address = watch(host, _probe(host, port, timeout))
            weakref.finalize(self, self._host_address.close)
        address = "localhost" if is_host else host
        self._store = self._run_bounded(lambda: _open(address, port, is_host, timeout))

    def _run_bounded(self, request: Callable[[], Answer]) -> Answer:
        future: Future[Answer] = Future()

        def run() -> None:
            try:
                future.set_result(request())
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, name="store", daemon=True).start()
        try:
            return future.result(self._timeout)
        except TimeoutError:
            raise StoreLostError(f"no answer from the store within {self._timeout:.0f} seconds") from None
        except RuntimeError as error:  # the base class of torch's DistError
            raise StoreLostError(str(error).splitlines()[0]) from error

    def wait_for(self, key: str) -> None:
        """Wait until an agent has written `key`."""
        self._run_bounded(lambda: self._store.wait([key], timedelta(seconds=self._timeout)))

    def read(self, keys: Sequence[str]) -> list[str]:
        """The values of these keys; every key must exist."""
        if self._host_address is not None and self._host_address.has_moved:
            raise StoreLostError("the name of its host has another address: the pod of the host was replaced")
        return [value.decode() for value in self._run_bounded(lambda: self._store.multi_get(list(keys)))]

    def write(self, key: str, value: str) -> None:
        """Set a key."""
        self._run_bounded(lambda: self._store.set(key, value))

    def replace(self, key: str, expected: str, value: str) -> str:
        """Set a key if its value is `expected`, where an empty string means a missing key; returns the value it then has."""
        return self._run_bounded(lambda: self._store.compare_set(key, expected, value)).decode()

    def add(self, key: str, amount: int) -> int:
        """Add to a counter, which starts at 0; returns its new value."""
        return self._run_bounded(lambda: self._store.add(key, amount))


def _open(host: str, port: int, is_host: bool, timeout: float) -> TCPStore:
    return TCPStore(host, port, None, is_host, timedelta(seconds=timeout), wait_for_workers=False)


def _probe(host: str, port: int, timeout: float) -> str:
    """Resolve the host and connect once: a replaced pod has a new address, but TCPStore would keep trying the old one.

    Returns the address.
    """
    try:
        with socket.create_connection((host, port), timeout=min(3.0, timeout)) as connection:
            return str(connection.getpeername()[0])
    except OSError as error:
        raise StoreLostError(f"{host}:{port} cannot be reached: {error}") from error
