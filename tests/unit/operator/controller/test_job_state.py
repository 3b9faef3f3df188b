"""State of jobs that only the operator process holds."""

from __future__ import annotations

import pytest
from tests.support.fake_kubernetes import KEY, start_job

from finetune_operator.controller import job_state
from finetune_operator.controller.job_state import JobState


async def test_recognizes_own_writes() -> None:
    harness = await start_job()
    assert harness.states.is_own_write(harness.cache.jobs[KEY])
    harness.client.put_job(suspend=True)
    harness.sync_cache()
    assert not harness.states.is_own_write(harness.cache.jobs[KEY])


@pytest.mark.parametrize(
    ("answers", "seconds", "responds", "is_silent"),
    [
        ([], 60, False, False),
        ([True], 1, True, False),
        ([True], 60, False, False),
        ([False], 1, False, False),
        ([False], 10, False, True),
        ([True, False], 1, True, False),
        ([True, False], 10, False, True),
        ([False, True], 1, True, False),
    ],
)
def test_contact_with_a_pod(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool], seconds: float, responds: bool, is_silent: bool
) -> None:
    """A pod is silent only if requests were left unanswered for a while: one that was not asked is neither."""
    now = 1000.0
    monkeypatch.setattr(job_state.time, "monotonic", lambda: now)
    state = JobState("job-uid")
    for has_answered in answers:
        state.record_contact("pod-uid", has_answered)
    now += seconds
    responding, silent = state.pods_in_contact(["pod-uid"])
    assert (bool(responding), bool(silent)) == (responds, is_silent)
    assert state.pods_in_contact([]) == (frozenset(), frozenset())
    assert state.contacts == {}
