"""How the tests are dealt to two workers: those that share a server or a cluster stay with one of them."""

from __future__ import annotations

from typing import Any

import pytest

TOGETHER = ("tests/integration/chart/", "tests/e2e/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deals these folders out as a whole, and all other tests one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        # xdist's own groups are written into names of tests that this pytest does not let it change.
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid)

    return ByFolder(config, log)
