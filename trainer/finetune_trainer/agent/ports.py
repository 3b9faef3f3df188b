"""Free TCP ports of this machine."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the range of ports that Linux gives to outgoing connections (32768 and above): a free port in that range may be taken by
# the next connection before its owner listens.
_CANDIDATES = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """`count` different ports on which no process listens; raises OSError when there are fewer."""
    ports: list[int] = []
    with ExitStack() as reserved:
        for port in random.SystemRandom().sample(_CANDIDATES, len(_CANDIDATES)):
            if len(ports) == count:
                break
            try:
                reserved.enter_context(socket.create_server(("", port)))
            except OSError:
                continue
            ports.append(port)
    if len(ports) < count:
        raise OSError(f"fewer than {count} free ports between {_CANDIDATES.start} and {_CANDIDATES.stop}")
    return ports
