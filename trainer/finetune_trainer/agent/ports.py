"""Free TCP ports of this machine."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the range from which Linux gives ports to outgoing connections (32768 and above): a port found free in there may be
# taken by the next connection before its owner listens.
_CANDIDATES = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on; raises OSError when there are not that many."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(_CANDIDATES, len(_CANDIDATES)):
            if len(found) == count:
                break
            try:
                held.enter_context(socket.create_server(("", port)))
            except OSError:
                continue
            found.append(port)
    if len(found) < count:
        raise OSError(f"no {count} free ports between {_CANDIDATES.start} and {_CANDIDATES.stop}")
    return found
