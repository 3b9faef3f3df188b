"""/healthz, /readyz and /metrics."""

from __future__ import annotations

import aiohttp
import pytest

from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.server import serve


@pytest.mark.parametrize(
    ("reason", "status", "text"), [(None, 200, "ok\n"), ("a job has waited 121 s", 503, "a job has waited 121 s\n")]
)
async def test_readiness_has_a_reason_and_liveness_none(reason: str | None, status: int, text: str) -> None:
    runner = await serve("127.0.0.1", 0, Metrics().registry, lambda: reason)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/readyz") as response:
                assert (response.status, await response.text()) == (status, text)
            async with session.get(f"{url}/healthz") as response:
                assert (response.status, await response.text()) == (200, "ok\n")
            async with session.get(f"{url}/metrics") as response:
                assert "finetune_operator_reconcile_errors_total" in await response.text()
    finally:
        await runner.cleanup()
