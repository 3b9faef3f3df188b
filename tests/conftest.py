"""Settings of all test processes: names of tests, distribution to the xdist workers, and threads."""

from __future__ import annotations

import os
from typing import Any

import pytest

# With more threads than cores tests take longer, and sums depend on how many of the threads get to run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Their tests share a server or a cluster.
FOLDERS_ON_ONE_WORKER = ("tests/integration/chart/", "tests/integration/scheduling/", "tests/e2e/", "tests/faults/")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a parameter of bytes after its argument: compressed bytes contain the time, which differs by worker."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Schedule each of these folders as a whole and all other tests one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class FolderScheduling(LoadScopeScheduling):
        # xdist_group marks would be added to the names of tests, which this version of pytest does not allow.
        def _split_scope(self, nodeid: str) -> str:
            for folder in FOLDERS_ON_ONE_WORKER:
                if nodeid.startswith(folder):
                    return folder
            return nodeid

    return FolderScheduling(config, log)
