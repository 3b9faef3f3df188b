"""Events: never lost because something else fails, and counted instead of repeated."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from tests.support.fake_kubernetes import job_body
from tests.support.waiting import reached

from finetune_operator.client.errors import ApiError
from finetune_operator.controller import event_recorder
from finetune_operator.controller.event_recorder import EventRecorder
from finetune_operator.controller.informer_cache import CachedJob, InformerCache
from finetune_operator.reconcile import Event

CRASHED = Event("Warning", "Crashed", "Pod j-1 is replaced: rank 1 died")
RESUMED = Event("Normal", "Resumed", "The job resumes from its newest checkpoint.")


class EventServer:
    """Stores events by name; raises the next of `errors`, before or after a request took effect."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.errors: list[Exception] = []
        self.loses_responses = False
        self.requests = 0

    async def create(self, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        if not self.loses_responses:
            self._fail()
        if name in self.events:
            raise ApiError(409, "AlreadyExists", "exists")
        self.events[name] = body
        if self.loses_responses:
            self._fail()

    async def patch_event(self, _namespace: str, name: str, patch: dict[str, Any]) -> None:
        self._fail()
        if name not in self.events:
            raise ApiError(404, "NotFound", "expired")
        self.events[name] |= patch

    def _fail(self) -> None:
        self.requests += 1
        if self.errors:
            raise self.errors.pop(0)

    def counts(self) -> dict[str, int]:
        """How often each event occurred, by reason."""
        return {body["reason"]: body.get("series", {"count": 1})["count"] for body in self.events.values()}


class Clock:
    """A clock that tests advance."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_recorder, "RETRY_DELAYS", (0.001, 0.001, 0.001))


@pytest.fixture
def job() -> CachedJob:
    return InformerCache().put_job(job_body(1))


def new_recorder(server: EventServer, clock: Clock | None = None) -> EventRecorder:
    client: Any = server
    clock = clock or Clock()
    return EventRecorder(client, "operator-0", lambda: datetime.fromtimestamp(clock.now, UTC), clock)


async def test_creates_events_in_order(job: CachedJob) -> None:
    server = EventServer()
    recorder = new_recorder(server)
    recorder.record(job, [CRASHED, RESUMED])
    await recorder.send_waiting()
    assert [body["reason"] for body in server.events.values()] == ["Crashed", "Resumed"]
    assert all(name.startswith("j.") for name in server.events)


async def test_counts_repeated_event_in_a_series(job: CachedJob) -> None:
    server, clock = EventServer(), Clock()
    recorder = new_recorder(server, clock)
    for _ in range(3):
        recorder.record(job, [CRASHED])
        await recorder.send_waiting()
    assert (server.counts(), server.requests) == ({"Crashed": 2}, 2), "the count is updated at intervals"
    clock.now += event_recorder.SERIES_INTERVAL
    recorder.record(job, [CRASHED])
    await recorder.send_waiting()
    assert (server.counts(), server.requests) == ({"Crashed": 4}, 3)
    clock.now += event_recorder.SERIES_WINDOW
    recorder.record(job, [CRASHED])
    await recorder.send_waiting()
    assert len(server.events) == 2, "after a while the event is created anew"


async def test_expired_event_is_created_again(job: CachedJob) -> None:
    server = EventServer()
    recorder = new_recorder(server)
    recorder.record(job, [CRASHED])
    await recorder.send_waiting()
    server.events.clear()
    recorder.record(job, [CRASHED])
    await recorder.send_waiting()
    assert list(server.counts()) == ["Crashed"]


async def test_event_of_another_job_is_not_counted(job: CachedJob) -> None:
    server = EventServer()
    recorder = new_recorder(server)
    recorder.record(job, [CRASHED])
    recorder.record(InformerCache().put_job(job_body(1, uid="another")), [CRASHED])
    await recorder.send_waiting()
    assert len(server.events) == 2


@pytest.mark.parametrize("loses_responses", [False, True], ids=["request lost", "response lost"])
@pytest.mark.parametrize(
    "error",
    [ApiError(429, "TooManyRequests", ""), ApiError(500, "", ""), TimeoutError(), aiohttp.ClientConnectionError()],
    ids=["429", "500", "timeout", "no connection"],
)
async def test_retries_temporary_errors(job: CachedJob, error: Exception, loses_responses: bool) -> None:
    server = EventServer()
    server.errors, server.loses_responses = [error, error], loses_responses
    recorder = new_recorder(server)
    recorder.record(job, [CRASHED])
    await recorder.send_waiting()
    assert server.counts() == {"Crashed": 1}


@pytest.mark.parametrize("errors", [[ApiError(403, "Forbidden", "namespace is terminating")], [TimeoutError()] * 9])
async def test_drops_event_that_is_not_accepted_and_sends_the_others(
    job: CachedJob, errors: list[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    server = EventServer()
    server.errors = list(errors)[:4]
    recorder = new_recorder(server)
    recorder.record(job, [CRASHED, RESUMED])
    await recorder.send_waiting()
    assert server.counts() == {"Resumed": 1}
    assert "team/j: the event Crashed is dropped" in caplog.text


async def test_runs_until_cancelled(job: CachedJob) -> None:
    server = EventServer()
    recorder = new_recorder(server)
    task = asyncio.create_task(recorder.run())
    for number, event in enumerate((CRASHED, RESUMED), start=1):
        recorder.record(job, [event])
        await reached(lambda number=number: len(server.counts()) == number)
    assert set(server.counts()) == {"Crashed", "Resumed"}
    task.cancel()
