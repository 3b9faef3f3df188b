"""Names tests alike in all xdist workers, and runs tests that share a server or a cluster on one worker."""

from __future__ import annotations

from typing import Any

import pytest

FOLDERS_ON_ONE_WORKER = ("tests/integration/chart/", "tests/e2e/", "tests/faults/")


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
