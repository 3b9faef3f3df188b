"""A container that runs out of memory or disk."""

from __future__ import annotations

import time
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


def test_full_disk(jobs: Jobs, measure: Measure) -> None:
    """Checkpoints fail with the reason while training goes on, and one is stored soon after there is room again."""
    scratch = {"type": "Memory", "size": "64Mi"}  # the only kind of volume here that becomes full without an eviction
    job = tiny(
        "full-disk", f"s3://finetune/faults/{uuid.uuid4().hex[:8]}", steps=20000, workers={"scratch": scratch},
        checkpoint={"everySteps": 20},
    )  # fmt: skip
    name = jobs.apply(job)
    jobs.wait_for_step(name, 40)
    _in_pod(jobs, name, "head -c 100M /dev/zero > /work/fill || true")
    jobs.wait(name, "CheckpointHealthy=False", lambda _: jobs.condition(name, "CheckpointHealthy")["status"] == "False")
    condition = jobs.condition(name, "CheckpointHealthy")
    assert condition["reason"] == "CheckpointSaveFailed"
    assert "No space left on device" in condition["message"]
    assert "workers.scratch.size" in condition["message"]
    jobs.wait_for_step(name, jobs.status(name)["progress"]["step"] + 40)
    freed = time.monotonic()
    _in_pod(jobs, name, "rm /work/fill")
    jobs.wait(name, "CheckpointHealthy=True", lambda _: jobs.condition(name, "CheckpointHealthy")["status"] == "True")
    seconds = time.monotonic() - freed
    assert jobs.status(name)["restarts"]["total"] == 0
    measure.record(22, "/work is full for a while, seconds from new room to the next checkpoint", seconds, 0, 0)
    jobs.kubectl("delete", "ftj", name, "--wait=false")


def _in_pod(jobs: Jobs, name: str, script: str) -> None:
    jobs.kubectl("exec", f"{name}-0", "--", "sh", "-c", script)
