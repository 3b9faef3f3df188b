"""The connection to the store that agent 0 hosts: every question gets an answer in bounded time, or the store is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import TypeVar

# torch documents the name here, but its type information calls it private.
from torch.distributed import TCPStore  # type: ignore[attr-defined]

Answer = TypeVar("Answer")


class StoreLostError(Exception):
    """The store does not answer: its host is gone, or not there yet."""


class Store:
    """A TCPStore, hosted here or elsewhere.

    The client library waits for ever for an answer from a host that vanished without closing its connections, so each
    question is asked in a thread that can be left behind.
    """

    def __init__(self, host: str, port: int, serve: bool, patience: float) -> None:
        """Connect to host:port, or host the store on that port; raises StoreLostError."""
        self._patience = patience
        if not serve:
            _probe(host, port, patience)
        self._store = self._bounded(lambda: _open("localhost" if serve else host, port, serve, patience))

    def _bounded(self, question: Callable[[], Answer]) -> Answer:
        future: Future[Answer] = Future()

        def ask() -> None:
            try:
                future.set_result(question())
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=ask, name="store", daemon=True).start()
        try:
            return future.result(self._patience)
        except TimeoutError:
            raise StoreLostError(f"no answer from the store for {self._patience:.0f} seconds") from None
        except RuntimeError as error:  # what torch's DistError is
            raise StoreLostError(str(error).splitlines()[0]) from error

    def wait_for(self, key: str) -> None:
        """Wait until somebody has written `key`."""
        self._bounded(lambda: self._store.wait([key], timedelta(seconds=self._patience)))

    def read(self, keys: Sequence[str]) -> list[str]:
        """The values of keys that exist."""
        return [value.decode() for value in self._bounded(lambda: self._store.multi_get(list(keys)))]

    def write(self, key: str, value: str) -> None:
        """Set a key."""
        self._bounded(lambda: self._store.set(key, value))

    def replace(self, key: str, expected: str, value: str) -> str:
        """Set a key if its value is `expected` (empty: or it is not there); the value it has then."""
        return self._bounded(lambda: self._store.compare_set(key, expected, value)).decode()

    def add(self, key: str, amount: int) -> int:
        """Add to a counter, which begins at 0; its new value."""
        return self._bounded(lambda: self._store.add(key, amount))


def _open(host: str, port: int, serve: bool, patience: float) -> TCPStore:
    return TCPStore(host, port, None, serve, timedelta(seconds=patience), wait_for_workers=False)


def _probe(host: str, port: int, patience: float) -> None:
    """Ask the DNS anew and knock: a replaced pod has another address, and the store's own connect retries the old one."""
    try:
        socket.create_connection((host, port), timeout=min(3.0, patience)).close()
    except OSError as error:
        raise StoreLostError(f"{host}:{port} cannot be reached: {error}") from error
