"""The Service that the jobs of a namespace share."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.support.fake_kubernetes import FakeKubernetesClient, conflict
from tests.support.simulated_cluster import NOON

from finetune_operator import builders
from finetune_operator.client.errors import ApiError
from finetune_operator.controller.service_keeper import CHECK_INTERVAL, ServiceKeeper

CREATED = "create Service finetune-trainers"


class Harness:
    """A keeper with a fake client, and a clock that only the test advances."""

    def __init__(self) -> None:
        self.client, self.now = FakeKubernetesClient(), NOON
        client: Any = self.client
        self.keeper = ServiceKeeper(client, lambda: self.now)

    async def ensure(self, namespace: str = "team") -> str | None:
        """Ensure the Service; the message of the obstacle."""
        obstacle = await self.keeper.ensure(namespace)
        return None if obstacle is None else obstacle.message


async def test_many_jobs_create_it_once() -> None:
    harness = Harness()
    assert await asyncio.gather(*(harness.ensure() for _ in range(50))) == [None] * 50
    assert harness.client.log == [CREATED]


async def test_existing_service_is_used() -> None:
    harness = Harness()
    await harness.client.create(builders.build_service("team"))
    harness.client.log.clear()
    assert await harness.ensure() is None
    assert harness.client.log == []


@pytest.mark.parametrize(
    ("seconds", "writes"), [(CHECK_INTERVAL.total_seconds() - 1, []), (CHECK_INTERVAL.total_seconds(), [CREATED])]
)
async def test_deleted_service_is_noticed_after_the_interval(seconds: float, writes: list[str]) -> None:
    harness = Harness()
    await harness.ensure()
    harness.client.objects.clear()
    harness.client.log.clear()
    harness.now += timedelta(seconds=seconds)
    assert await harness.ensure() is None
    assert harness.client.log == writes


@pytest.mark.parametrize(
    "change", [{"clusterIP": "10.96.0.9"}, {"selector": {"app": "other"}}], ids=["not headless", "other pods"]
)
async def test_another_service_of_this_name_is_an_obstacle_until_it_is_deleted(change: dict[str, Any]) -> None:
    harness = Harness()
    service = builders.build_service("team")
    service["spec"] |= change
    await harness.client.create(service)
    message = await harness.ensure()
    assert message is not None
    assert "Service finetune-trainers exists but does not select the pods of jobs: delete it" in message
    harness.client.objects.clear()
    assert await harness.ensure() is None, "it is looked up again at once"


async def test_another_operator_may_create_it_first() -> None:
    harness = Harness()
    harness.client.create_errors["Service"] = conflict("AlreadyExists")
    assert await harness.ensure() is None


async def test_rejection_is_raised_and_the_next_job_tries_again() -> None:
    harness = Harness()
    harness.client.create_errors["Service"] = ApiError(403, "Forbidden", "exceeded quota")
    with pytest.raises(ApiError, match="exceeded quota"):
        await harness.ensure()
    harness.client.create_errors.clear()
    assert await harness.ensure() is None
    assert harness.client.log == [CREATED]
