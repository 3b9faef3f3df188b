"""The work queue on a real event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.support.waiting import reached

from finetune_operator.controller.workqueue import JITTER, OutdatedError, WorkQueue

Process = Callable[[str], Awaitable[float | None]]


@asynccontextmanager
async def running(queue: WorkQueue[str], process: Process, workers: int = 2) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers, process))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_processes_waiting_key_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    calls: list[str] = []

    async def process(key: str) -> None:
        calls.append(key)

    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    async with running(queue, process):
        await reached(lambda: len(queue) == 0)
        await asyncio.sleep(0.01)
    assert calls == ["a", "b"]


async def test_processes_key_again_if_added_during_processing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    started, proceed = asyncio.Event(), asyncio.Event()
    active, max_active, calls = 0, 0, 0

    async def process(_key: str) -> None:
        nonlocal active, max_active, calls
        active, calls = active + 1, calls + 1
        max_active = max(max_active, active)
        started.set()
        await proceed.wait()
        active -= 1

    async with running(queue, process, workers=4):
        queue.add("a")
        await started.wait()
        for _ in range(3):
            queue.add("a")
        await asyncio.sleep(0.01)
        assert calls == 1
        proceed.set()
        await reached(lambda: calls == 2)
        await asyncio.sleep(0.01)
    assert (calls, max_active) == (2, 1)


async def test_processes_different_keys_concurrently() -> None:
    queue: WorkQueue[str] = WorkQueue()
    barrier = asyncio.Barrier(3)

    async def process(_key: str) -> None:
        await barrier.wait()

    async with running(queue, process, workers=3), asyncio.timeout(5):
        for key in "abc":
            queue.add(key)
        await reached(lambda: len(queue) == 0 and queue.oldest_wait() == 0)


async def test_retry_delay_grows_and_does_not_block_other_keys() -> None:
    errors: list[int] = []
    queue: WorkQueue[str] = WorkQueue(initial_delay=0.01, max_delay=0.04, on_error=lambda: errors.append(1))
    loop = asyncio.get_running_loop()
    times: list[float] = []
    others: list[str] = []

    async def process(key: str) -> None:
        if key == "good":
            others.append(key)
            return
        times.append(loop.time())
        if len(times) < 5:
            raise OSError("no response")

    async with running(queue, process, workers=1):
        queue.add("bad")
        await reached(lambda: len(times) == 1)
        queue.add("bad")  # an event must not shorten the retry delay
        queue.add("good")
        await reached(lambda: len(times) == 5)
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(delay >= expected * 0.9 for delay, expected in zip(delays, (0.01, 0.02, 0.04, 0.04), strict=True))
    assert (others, len(errors)) == (["good"], 4)


async def test_news_end_the_delay_of_a_key_with_outdated_data() -> None:
    queue: WorkQueue[str] = WorkQueue(initial_delay=60)
    calls: list[str] = []

    async def process(key: str) -> None:
        calls.append(key)
        if len(calls) < 3:
            raise OutdatedError("the object has changed")

    async with running(queue, process):
        queue.add("a")
        await reached(lambda: len(calls) == 1)
        await asyncio.sleep(0.02)
        assert len(calls) == 1, "without news the delay applies"
        queue.add("a")
        await reached(lambda: len(calls) == 2)
        queue.add("a")
        await reached(lambda: len(calls) == 3)


@pytest.mark.parametrize("error", [OutdatedError("changed"), OSError("no response")], ids=["outdated", "failing"])
async def test_retries_without_news_become_rare(error: Exception) -> None:
    queue: WorkQueue[str] = WorkQueue(initial_delay=0.01)
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def process(_key: str) -> None:
        times.append(loop.time())
        raise error

    async with running(queue, process):
        queue.add("a")
        await reached(lambda: len(times) == 6)
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(delay >= expected * 0.9 for delay, expected in zip(delays, (0.01, 0.02, 0.04, 0.08, 0.16), strict=True))


async def test_success_resets_the_delay() -> None:
    queue: WorkQueue[str] = WorkQueue(initial_delay=0.005, max_delay=60)
    calls: list[int] = []

    async def process(_key: str) -> None:
        calls.append(len(calls))
        if len(calls) % 5:
            raise OSError("no response")

    async with running(queue, process):
        for expected in (5, 10, 15):
            queue.add("a")
            await reached(lambda count=expected: len(calls) == count)  # type: ignore[misc]


async def test_waits_as_long_as_the_error_asks_for() -> None:
    queue: WorkQueue[str] = WorkQueue(initial_delay=0.001, minimum_delay=lambda error: float(str(error)))
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def process(_key: str) -> None:
        times.append(loop.time())
        if len(times) == 1:
            raise OSError("0.1")

    async with running(queue, process):
        queue.add("a")
        await reached(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.1


async def test_keys_that_failed_together_are_not_retried_together() -> None:
    queue: WorkQueue[int] = WorkQueue(initial_delay=0.4)
    loop = asyncio.get_running_loop()
    times: dict[int, list[float]] = {}

    async def process(key: int) -> None:
        times.setdefault(key, []).append(loop.time())
        if len(times[key]) == 1:
            raise OSError("no response")

    task = asyncio.create_task(queue.run(20, process))
    for key in range(20):
        queue.add(key)
    await reached(lambda: all(len(calls) == 2 for calls in times.values()) and len(times) == 20)
    task.cancel()
    delays = [second - first for first, second in times.values()]
    assert min(delays) >= 0.4
    assert max(delays) - min(delays) > 0.4 * JITTER / 4


async def test_earlier_add_overrides_requeue_delay() -> None:
    queue: WorkQueue[str] = WorkQueue()
    calls: list[str] = []

    async def process(key: str) -> float | None:
        calls.append(key)
        return {"soon": 0.01, "late": 60.0}[key] if calls.count(key) == 1 else None

    async with running(queue, process):
        queue.add("soon")
        queue.add("late")
        await reached(lambda: calls.count("soon") == 2)
        assert calls.count("late") == 1
        queue.add("late")
        await reached(lambda: calls.count("late") == 2)


@pytest.mark.parametrize(("first", "second"), [(60.0, 0.01), (0.01, 60.0)])
async def test_earlier_of_two_delays_applies(first: float, second: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    calls: list[str] = []

    async def process(key: str) -> None:
        calls.append(key)

    async with running(queue, process):
        queue.add_after("a", first)
        queue.add_after("a", second)
        await reached(lambda: calls == ["a"])


async def test_reports_oldest_wait() -> None:
    now = 100.0
    queue: WorkQueue[str] = WorkQueue(clock=lambda: now)
    assert queue.oldest_wait() == 0
    queue.add("a")
    now = 107.0
    assert queue.oldest_wait() == 7


async def test_forgotten_key_is_not_processed() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.01)
    queue.forget("a")
    await asyncio.sleep(0.03)
    assert len(queue) == 0
