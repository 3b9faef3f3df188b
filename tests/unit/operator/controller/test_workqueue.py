"""The queue, on a real event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from finetune_operator.controller.workqueue import WorkQueue

Work = Callable[[str], Awaitable[float | None]]


@asynccontextmanager
async def at_work(queue: WorkQueue[str], work: Work, workers: int = 2) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers, work))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


async def test_a_waiting_key_is_worked_on_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    calls: list[str] = []

    async def work(key: str) -> None:
        calls.append(key)

    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    async with at_work(queue, work):
        await until(lambda: len(queue) == 0)
        await asyncio.sleep(0.01)
    assert calls == ["a", "b"]


async def test_a_key_added_while_worked_on_comes_again_and_never_twice_simultaneously() -> None:
    queue: WorkQueue[str] = WorkQueue()
    started, go_on = asyncio.Event(), asyncio.Event()
    now, most, calls = 0, 0, 0

    async def work(_key: str) -> None:
        nonlocal now, most, calls
        now, calls = now + 1, calls + 1
        most = max(most, now)
        started.set()
        await go_on.wait()
        now -= 1

    async with at_work(queue, work, workers=4):
        queue.add("a")
        await started.wait()
        for _ in range(3):
            queue.add("a")
        await asyncio.sleep(0.01)
        assert calls == 1
        go_on.set()
        await until(lambda: calls == 2)
        await asyncio.sleep(0.01)
    assert (calls, most) == (2, 1)


async def test_different_keys_run_side_by_side() -> None:
    queue: WorkQueue[str] = WorkQueue()
    meeting = asyncio.Barrier(3)

    async def work(_key: str) -> None:
        await meeting.wait()

    async with at_work(queue, work, workers=3), asyncio.timeout(5):
        for key in "abc":
            queue.add(key)
        await until(lambda: len(queue) == 0 and queue.stalled_for() == 0)


async def test_errors_pause_longer_each_time_and_stop_nobody_else() -> None:
    errors: list[int] = []
    queue: WorkQueue[str] = WorkQueue(first_pause=0.01, longest_pause=0.04, on_error=lambda: errors.append(1))
    loop = asyncio.get_running_loop()
    times: list[float] = []
    others: list[str] = []

    async def work(key: str) -> None:
        if key == "good":
            others.append(key)
            return
        times.append(loop.time())
        if len(times) < 5:
            raise OSError("no answer")

    async with at_work(queue, work, workers=1):
        queue.add("bad")
        await until(lambda: len(times) == 1)
        queue.add("bad")  # an event must not shorten the pause
        queue.add("good")
        await until(lambda: len(times) == 5)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(pause >= expected * 0.9 for pause, expected in zip(pauses, (0.01, 0.02, 0.04, 0.04), strict=True))
    assert (others, len(errors)) == (["good"], 4)


async def test_requeue_after_and_an_earlier_event() -> None:
    queue: WorkQueue[str] = WorkQueue()
    calls: list[str] = []

    async def work(key: str) -> float | None:
        calls.append(key)
        return {"soon": 0.01, "late": 60.0}[key] if calls.count(key) == 1 else None

    async with at_work(queue, work):
        queue.add("soon")
        queue.add("late")
        await until(lambda: calls.count("soon") == 2)
        assert calls.count("late") == 1
        queue.add("late")
        await until(lambda: calls.count("late") == 2)


@pytest.mark.parametrize(("first", "second"), [(60.0, 0.01), (0.01, 60.0)])
async def test_the_earlier_of_two_appointments_holds(first: float, second: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    calls: list[str] = []

    async def work(key: str) -> None:
        calls.append(key)

    async with at_work(queue, work):
        queue.add_after("a", first)
        queue.add_after("a", second)
        await until(lambda: calls == ["a"])


async def test_it_knows_for_how_long_a_key_has_been_kept_waiting() -> None:
    now = 100.0
    queue: WorkQueue[str] = WorkQueue(clock=lambda: now)
    assert queue.stalled_for() == 0
    queue.add("a")
    now = 107.0
    assert queue.stalled_for() == 7


async def test_a_forgotten_key_does_not_come_back() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.01)
    queue.forget("a")
    await asyncio.sleep(0.03)
    assert len(queue) == 0
