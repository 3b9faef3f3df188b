"""What the operator does with jobs that are stopped, broken, late or over; on real pods."""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

from tests.support.cluster_jobs import SECRET, Jobs, tiny

INSTALLED_BY = "kubectl"
LONG = 5000
SESSION = uuid.uuid4().hex[:8]


def storage(name: str) -> str:
    """Each job of each test session has a place of its own in the bucket: it would resume from what it finds there."""
    return f"s3://finetune/policies-{SESSION}/{name}"


def failed(jobs: Jobs, name: str, *, seconds: float = 120) -> tuple[str, str]:
    """Reason and message of a job's Failed condition, once it has failed."""
    jobs.wait_for_phase(name, "Failed", seconds=seconds)
    condition = jobs.condition(name, "Failed")
    assert condition["status"] == "True"
    return condition["reason"], condition["message"]


def test_suspended_job_frees_its_pods_and_resumes_from_its_checkpoint(jobs: Jobs) -> None:
    name = jobs.apply(tiny("suspended", storage("suspended"), steps=LONG))
    jobs.wait_for_step(name, 10)
    jobs.patch(name, {"runPolicy": {"suspend": True}})
    jobs.wait_for_phase(name, "Suspended")
    assert jobs.condition(name, "Suspended")["status"] == "True"
    _wait_until(lambda: not jobs.pods(name), "its pods are gone")
    # What the trainer stored on its way out, it told in its last word.
    status = jobs.status(name)
    stopped_at = status["checkpoint"]["step"]
    assert stopped_at >= 10

    jobs.patch(name, {"runPolicy": {"suspend": False}})
    jobs.wait_for_phase(name, "Running")
    jobs.wait_for_step(name, stopped_at + 50)
    [resumed_at] = re.findall(r"resumed from step (\d+)", jobs.kubectl("logs", f"{name}-0"))
    assert int(resumed_at) >= stopped_at
    assert jobs.status(name)["restarts"]["total"] == 0, "a suspension is no failure"

    _deletion_leaves_nothing(jobs, name)


def _deletion_leaves_nothing(jobs: Jobs, name: str) -> None:
    jobs.kubectl("delete", "ftj", name)

    def gone() -> bool:
        listed = jobs.kubectl("get", "pods,services,configmaps", f"--selector=finetune-operator.io/job={name}", "--output=name")
        return not listed.strip()

    _wait_until(gone, "everything that belonged to the deleted job is gone")


def test_restarted_operator_changes_nothing(jobs: Jobs) -> None:
    name = jobs.apply(tiny("steady", storage("steady"), nodes=2, steps=LONG))
    before = jobs.wait_for_step(name, 5)
    pods = {pod["metadata"]["uid"] for pod in jobs.pods(name).values()}
    jobs.cluster.kubectl(
        "--namespace=finetune-system", "delete", "pod", "--selector=app.kubernetes.io/component=operator", "--wait=true"
    )
    after = jobs.wait_for_step(name, before["progress"]["step"] + 20)
    assert {pod["metadata"]["uid"] for pod in jobs.pods(name).values()} == pods
    assert after["restarts"]["total"] == 0
    assert after["startTime"] == before["startTime"]
    assert after["phase"] == "Running"
    jobs.kubectl("delete", "ftj", name)


def test_failed_pod_is_replaced_until_the_budget_is_spent(jobs: Jobs) -> None:
    """Nobody listens at this endpoint, which a retry might cure, so it is retried; within backoffLimit."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "nowhere"},
        "stringData": jobs.secret | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    }
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps(secret))
    job = tiny(
        "unreachable",
        storage("unreachable"),
        checkpoint={"credentials": "nowhere"},
        runPolicy={"backoffLimit": 1},
    )
    reason, message = failed(jobs, jobs.apply(job), seconds=240)
    assert reason == "BackoffLimitExceeded"
    assert "StorageUnavailable" in message
    assert "spec.checkpoint.storage" in message
    status = jobs.status("unreachable")
    assert status["restarts"]["failures"] == 2
    assert status["failure"]["reason"] == "StorageUnavailable"


def test_deadline_ends_a_job(jobs: Jobs) -> None:
    name = jobs.apply(tiny("late", storage("late"), steps=LONG, runPolicy={"activeDeadlineSeconds": 5}))
    reason, message = failed(jobs, name)
    assert reason == "DeadlineExceeded"
    assert "activeDeadlineSeconds" in message


def test_finished_job_is_removed_after_its_ttl_and_its_model_stays(jobs: Jobs, tmp_path: Path) -> None:
    name = jobs.apply(tiny("short-lived", storage("short-lived"), steps=5, runPolicy={"ttlSecondsAfterFinished": 3}))
    _wait_until(lambda: name not in jobs.kubectl("get", "ftj", "--output=name"), "the job is deleted", seconds=180)
    model = [entry.path for entry in jobs.store(storage(name), tmp_path).list("model")]
    assert any(path.endswith("model.safetensors") for path in model)
    _wait_until(lambda: not jobs.pods(name), "its pods are gone")


def test_job_waits_for_its_secret(jobs: Jobs) -> None:
    job = tiny("patient", storage("patient"), steps=5, checkpoint={"credentials": "comes-later"})
    name = jobs.apply(job)

    def says_so() -> bool:
        conditions = jobs.status(name).get("conditions", [])
        return any(condition["reason"] == "SecretNotFound" for condition in conditions)

    _wait_until(says_so, "the condition names the missing Secret")
    message = jobs.condition(name, "PodsReady")["message"]
    assert "spec.checkpoint.credentials" in message
    assert "comes-later" in message
    assert not jobs.pods(name)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "comes-later"},
        "stringData": jobs.secret,
    }
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps(secret))
    jobs.wait_for_phase(name, "Succeeded", seconds=180)


def test_mistake_that_no_schema_sees_fails_at_once(jobs: Jobs) -> None:
    name = jobs.apply(tiny("twice", storage("twice"), deepspeed={"config": {"train_batch_size": 4}}))
    reason, message = failed(jobs, name, seconds=30)
    assert reason == "InvalidConfiguration"
    assert "spec.deepspeed: config.train_batch_size is decided by training.batchSize: set that" in message
    assert not jobs.pods(name)


def test_missing_bucket_fails_at_once(jobs: Jobs) -> None:
    name = jobs.apply(tiny("no-bucket", "s3://no-such-bucket/model"))
    reason, message = failed(jobs, name)
    assert reason == "InvalidConfiguration"
    assert "spec.checkpoint.storage" in message
    assert "no-such-bucket" in message
    assert jobs.status(name)["restarts"]["total"] == 0


def test_malformed_data_fails_at_once_with_file_and_line(jobs: Jobs, tmp_path: Path) -> None:
    rows = ['{"text": "a good row"}', '{"text": "a bad one'] * 3
    jobs.store(storage("malformed"), tmp_path).put("data/rows.jsonl", "\n".join(rows).encode())
    data = {"train": [{"source": storage("malformed") + "/data/*.jsonl", "credentials": SECRET}]}
    name = jobs.apply(tiny("malformed", storage("malformed"), data=data))
    reason, message = failed(jobs, name)
    assert reason == "InvalidData"
    assert "rows.jsonl:2" in message


def test_checkpoints_of_another_run_are_left_alone(jobs: Jobs, tmp_path: Path) -> None:
    first = jobs.apply(tiny("seed-one", storage("seeds"), steps=10))
    jobs.wait_for_phase(first, "Succeeded", seconds=180)
    store = jobs.store(storage("seeds"), tmp_path)
    before = {entry.path: entry.size for entry in store.list()}

    second = jobs.apply(tiny("seed-two", storage("seeds"), steps=10, training={"seed": 2}))
    reason, message = failed(jobs, second)
    assert reason == "InvalidConfiguration"
    assert "spec.training.seed" in message
    assert {entry.path: entry.size for entry in store.list()} == before


def _wait_until(holds: Any, what: str, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.5)
