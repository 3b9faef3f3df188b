"""/healthz, /metrics and the values of the metrics."""

from __future__ import annotations

import aiohttp
import pytest

from finetune_operator.controller.metrics import Metrics
from finetune_operator.controller.server import serve


@pytest.mark.parametrize(("age", "status"), [(0.0, 200), (119.0, 200), (121.0, 503)])
async def test_health_depends_on_oldest_wait(age: float, status: int) -> None:
    runner = await serve("127.0.0.1", 0, Metrics().registry, lambda: age, stalled_after=120)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/healthz") as response:
                assert response.status == status
            async with session.get(f"{url}/metrics") as response:
                assert "finetune_operator_reconcile_errors_total" in await response.text()
    finally:
        await runner.cleanup()
