"""A container that runs out of memory or disk."""

from __future__ import annotations

import uuid

from tests.support.cluster_jobs import Jobs, tiny
from tests.support.reliability import Measure


def test_out_of_memory(jobs: Jobs, measure: Measure) -> None:
    """The job fails at once, and the message says how it would need less memory."""
    job = tiny("out-of-memory", f"s3://finetune/faults/{uuid.uuid4().hex[:8]}")
    job["spec"]["workers"]["resources"] = {
        "requests": {"cpu": "100m", "memory": "400Mi"},
        "limits": {"cpu": 1, "memory": "400Mi"},
    }
    name = jobs.apply(job)
    status = jobs.wait_for_phase(name, "Failed", seconds=240)
    condition = jobs.condition(name, "Failed")
    assert condition["reason"] == "OutOfMemory"
    assert "microBatchSize" in condition["message"] or "limits.memory" in condition["message"], condition["message"]
    assert status["restarts"]["total"] == 0, "it is not retried, since nothing would be different"
    measure.record(10, "a container exceeds its memory limit", None)


def test_disk_limit(jobs: Jobs, measure: Measure) -> None:
    """The kubelet evicts the pod: a failure that names the field, and not a disruption that is repeated for ever."""
    job = tiny("disk-limit", f"s3://finetune/faults/{uuid.uuid4().hex[:8]}", steps=5000, runPolicy={"backoffLimit": 0})
    job["spec"]["workers"]["resources"]["limits"]["ephemeral-storage"] = "64Ki"
    name = jobs.apply(job)
    jobs.wait_for_phase(name, "Failed", seconds=240)
    condition = jobs.condition(name, "Failed")
    assert condition["reason"] == "BackoffLimitExceeded"
    assert "The last one was DiskLimitExceeded on pod disk-limit-0" in condition["message"]
    assert "raise workers.resources.limits.ephemeral-storage" in condition["message"]
    measure.record(22, "a pod exceeds its disk limit", None)
