"""Notices that the name of the store's host leads to another pod by now.

A pod that was replaced may live on, for example on a node whose kubelet has failed, and still serve its store to the agents
that are connected to it. The agent of its replacement would wait for them for ever.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

LOOKUP_INTERVAL = 10.0  # seconds
LOOKUPS = 2  # in a row that find only other addresses


def addresses_of(host: str) -> set[str]:
    """All addresses of a name. Raises OSError if the name server does not know any or does not answer."""
    return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}


class HostAddress:
    """Looks a name up at intervals, in a thread of its own: a name server that does not answer must not delay the agent."""

    def __init__(
        self,
        host: str,
        address: str,
        resolve: Callable[[str], set[str]] = addresses_of,
        interval: float = LOOKUP_INTERVAL,
    ) -> None:
        self._host, self._address, self._resolve, self._interval = host, address, resolve, interval
        self._others_found = 0
        self._closed = threading.Event()
        threading.Thread(target=self._look_up_regularly, name="host-address", daemon=True).start()

    @property
    def has_moved(self) -> bool:
        """Whether the name has had only other addresses for some time. A failed lookup says nothing."""
        return self._others_found >= LOOKUPS

    def close(self) -> None:
        """Stop the lookups."""
        self._closed.set()

    def _look_up_regularly(self) -> None:
        while not self._closed.wait(self._interval):
            try:
                addresses = self._resolve(self._host)
            except OSError:
                continue
            self._others_found = 0 if self._address in addresses or not addresses else self._others_found + 1
