"""Waits for custom resource definitions."""

import time
from collections.abc import Callable

from .errors import ClusterError


def wait_until_established(kubectl: Callable[..., object], *names: str, seconds: float = 60) -> None:
    """Wait until the API server serves these custom resources.

    Raises ClusterError with kubectl's message if it takes too long. kubectl itself fails at once if a definition is so new that
    it has no conditions yet.
    """
    deadline = time.monotonic() + seconds
    definitions = [f"crd/{name}" for name in names]
    while True:
        try:
            kubectl("wait", "--for=condition=Established", f"--timeout={seconds:.0f}s", *definitions)
            return
        except ClusterError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
