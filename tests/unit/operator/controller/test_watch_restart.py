"""Watches that end with an error event start again, after growing pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kopf._cogs.clients.watching import Bookmark, WatchingError

from finetune_operator.controller.watch_restart import MAX_DELAY, RestartingWatch


class FailingWatch:
    """Yields one event, and fails `lasts` seconds after its start, unless it is `healthy`."""

    def __init__(self) -> None:
        self.now, self.lasts, self.healthy = 0.0, 1.0, False
        self.pauses: list[float] = []

    async def watch(self, **_: object) -> AsyncIterator[str]:
        yield "event"
        self.now += self.lasts
        if not self.healthy:
            raise WatchingError("etcdserver: no leader")

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def no_relist() -> None:
    raise AssertionError("nothing was listed")


async def events(watch: RestartingWatch, resource: str = "pods") -> list[str]:
    return [event async for event in watch(resource=resource, namespace=None)]


async def test_watch_that_failed_ends_after_growing_pauses() -> None:
    failing = FailingWatch()
    watch = RestartingWatch(failing.watch, no_relist, lambda: failing.now, failing.sleep)
    for _ in range(10):
        assert await events(watch) == ["event"]
    expected = [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert all(0.5 * longest <= pause <= longest for pause, longest in zip(failing.pauses, expected, strict=True))

    await events(watch, "finetunejobs")
    assert failing.pauses[-1] <= 1, "each kind has pauses of its own"

    failing.lasts = MAX_DELAY + 1
    await events(watch)
    assert failing.pauses[-1] <= 1, "the pauses start over after a watch that lasted"


async def test_watch_that_ends_by_itself_is_not_delayed_and_ends_the_growth() -> None:
    failing = FailingWatch()
    watch = RestartingWatch(failing.watch, no_relist, lambda: failing.now, failing.sleep)
    for is_healthy, pauses in ((True, 0), (False, 1), (False, 2), (True, 2), (False, 3)):
        failing.healthy = is_healthy
        assert await events(watch) == ["event"]
        assert len(failing.pauses) == pauses
    assert failing.pauses[-1] <= 1


async def test_every_list_but_the_first_of_its_kind_is_reported() -> None:
    async def watch(**_: object) -> AsyncIterator[object]:
        yield {"type": None}
        yield Bookmark.LISTED
        yield {"type": "MODIFIED"}

    relists: list[str] = []
    restarting = RestartingWatch(watch, lambda: relists.append("relist"))
    for resource, count in (("pods", 0), ("finetunejobs", 0), ("pods", 1), ("pods", 2), ("finetunejobs", 3)):
        assert len(await events(restarting, resource)) == 3
        assert len(relists) == count
