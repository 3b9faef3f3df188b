"""State of jobs that only the operator process holds."""

from __future__ import annotations

from tests.support.fake_kubernetes import KEY, start_job


async def test_recognizes_own_writes() -> None:
    harness = await start_job()
    assert harness.states.is_own_write(harness.cache.jobs[KEY])
    harness.client.put_job(suspend=True)
    harness.sync_cache()
    assert not harness.states.is_own_write(harness.cache.jobs[KEY])
