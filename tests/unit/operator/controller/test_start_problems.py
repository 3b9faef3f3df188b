"""The kubelet's warnings about pods that stay in ContainerCreating."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support.fake_kubernetes import ReconcilerHarness, start_job
from tests.support.simulated_cluster import NOON

from finetune_operator.api.conditions import format_timestamp

NOT_FOUND = 'MountVolume.SetUp failed for volume "extra" : configmap "typo" not found'


async def job_with_starting_pod(age: float = 30) -> ReconcilerHarness:
    """A job whose second pod is bound to a node and has been in ContainerCreating for `age` seconds."""
    harness = await start_job()
    body = harness.client.objects["Pod", "j-1"]
    body["spec"]["nodeName"] = "node-1"
    body["status"] = {
        "phase": "Pending",
        "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}],
    }
    harness.client.bump_version(body)
    harness.sync_cache()
    harness.now += timedelta(seconds=age)
    return harness


def warning(reason: str, note: str, *, seconds: float = 30) -> dict[str, Any]:
    """A Warning event of the kubelet, as events.k8s.io/v1 shows it, that happened last at `seconds`."""
    return {
        "reason": reason,
        "note": note,
        "eventTime": None,
        "deprecatedLastTimestamp": format_timestamp(NOON + timedelta(seconds=seconds)),
    }


def warn(harness: ReconcilerHarness, event: dict[str, Any]) -> None:
    """Let the kubelet post an event about the second pod."""
    harness.client.warnings[harness.client.objects["Pod", "j-1"]["metadata"]["uid"]] = [event]


@pytest.mark.parametrize(
    ("event", "shown_reason", "message"),
    [
        pytest.param(warning("FailedMount", NOT_FOUND), "VolumeNotFound", NOT_FOUND, id="missing ConfigMap"),
        pytest.param(
            warning("FailedMount", "MountVolume.SetUp failed: mount failed: exit status 32"),
            "FailedMount",
            "exit status 32",
            id="mount error",
        ),
        pytest.param(
            warning("FailedCreatePodSandBox", "plugin type=bridge failed: no IP addresses"),
            "FailedCreatePodSandBox",
            "no IP addresses",
            id="network",
        ),
        pytest.param(warning("BackOff", "restarting failed container"), "PodsStarting", "", id="another warning"),
        pytest.param(warning("FailedMount", NOT_FOUND, seconds=-600), "PodsStarting", "", id="solved long ago"),
    ],
)
async def test_shows_warnings_about_volumes_and_network(event: dict[str, Any], shown_reason: str, message: str) -> None:
    harness = await job_with_starting_pod()
    warn(harness, event)
    harness.states.get(next(iter(harness.cache.jobs.values()))).last_write = float("-inf")
    await harness.reconcile()
    condition = harness.condition("PodsReady")
    assert condition["reason"] == shown_reason
    if message:
        assert condition["message"].startswith(f"0 of 2 pods are ready. Pod j-1 does not start: {event['note']}.")


async def test_young_pod_is_not_asked_about() -> None:
    harness = await job_with_starting_pod(age=10)
    warn(harness, warning("FailedMount", NOT_FOUND, seconds=5))
    assert await harness.reconcile() == 10
    assert harness.condition("PodsReady")["reason"] == "PodsStarting"


async def test_events_are_read_at_intervals() -> None:
    harness = await job_with_starting_pod()
    assert await harness.reconcile() == 30, "the node of a pod that is not ready is checked in between"
    warn(harness, warning("FailedMount", NOT_FOUND))
    await harness.reconcile()
    assert harness.condition("PodsReady")["reason"] == "PodsStarting"
