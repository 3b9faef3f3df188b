"""Policies on real pods: suspension, restarts, failures, deadlines and cleanup."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster_jobs import SECRET, Jobs, tiny
from tests.support.sidecar_injection import LABELS, SIDECAR, sidecar_injection
from tests.support.waiting import wait_until

INSTALLED_BY = "kubectl"
LONG = 5000
SESSION = uuid.uuid4().hex[:8]


def storage(name: str) -> str:
    """Storage URI of a job, unique to the test session, because a job resumes from checkpoints that it finds."""
    return f"s3://finetune/policies-{SESSION}/{name}"


@pytest.fixture(scope="module")
def injected(jobs: Jobs) -> Iterator[dict[str, Any]]:
    """The template of a pod into which a sidecar is injected."""
    with sidecar_injection(jobs):
        yield {"labels": LABELS}


@pytest.fixture(scope="module")
def failing(jobs: Jobs, injected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Jobs that cannot succeed, by what is wrong; they run at the same time."""
    jobs.create_secret("nowhere", jobs.secret | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    rows = ['{"text": "a good row"}', '{"text": "a bad one'] * 3
    keys = tmp_path_factory.mktemp("keys")
    jobs.store(storage("malformed"), keys).put("data/rows.jsonl", "\n".join(rows).encode())
    data = {"train": [{"source": storage("malformed") + "/data/*.jsonl", "credentials": SECRET}]}
    rule = {"action": "Retry", "onReasons": ["InvalidConfiguration"]}
    policy = {"backoffLimit": 1, "failurePolicy": {"rules": [rule]}}
    missing = "s3://no-such-bucket/model"
    documents = {
        "endpoint": tiny(
            "unreachable", storage("unreachable"), checkpoint={"credentials": "nowhere"}, runPolicy={"backoffLimit": 1}
        ),
        "bucket": tiny("no-bucket", missing),
        "bucket, retried": tiny("sidecar-failed", missing, workers={"template": injected}, runPolicy=policy),
        "data": tiny("malformed", storage("malformed"), data=data),
    }
    return {problem: jobs.apply(document) for problem, document in documents.items()}


def wait_for_failure(jobs: Jobs, name: str, *, seconds: float = 120) -> tuple[str, str]:
    """Wait until a job has failed, and return reason and message of its Failed condition."""
    jobs.wait_for_phase(name, "Failed", seconds=seconds)
    condition = jobs.condition(name, "Failed")
    assert condition["status"] == "True"
    return condition["reason"], condition["message"]


def test_suspends_and_resumes_from_checkpoint(jobs: Jobs) -> None:
    name = jobs.apply(tiny("suspended", storage("suspended"), steps=LONG))
    jobs.wait_for_step(name, 10)
    jobs.patch(name, {"runPolicy": {"suspend": True}})
    jobs.wait_for_phase(name, "Suspended")
    assert jobs.condition(name, "Suspended")["status"] == "True"
    wait_until(lambda: not jobs.pods(name), "its pods are deleted")
    # The termination message names the checkpoint that the trainer saved while it terminated.
    status = jobs.status(name)
    stopped_at = status["checkpoint"]["step"]
    assert stopped_at >= 10

    jobs.patch(name, {"runPolicy": {"suspend": False}})
    jobs.wait_for_phase(name, "Running")
    jobs.wait_for_step(name, stopped_at + 5)
    [resumed_at] = re.findall(r"resumed from step (\d+)", jobs.kubectl("logs", f"{name}-0"))
    assert int(resumed_at) >= stopped_at
    assert jobs.status(name)["restarts"]["total"] == 0, "a suspension does not count as a restart"

    _delete_and_check_objects(jobs, name)


def _delete_and_check_objects(jobs: Jobs, name: str) -> None:
    """Delete a job, and wait until the objects that it owned are deleted too."""
    jobs.kubectl("delete", "ftj", name)

    def is_deleted() -> bool:
        listed = jobs.kubectl("get", "pods,networkpolicies", f"--selector=finetune-operator.io/job={name}", "--output=name")
        return not listed.strip()

    wait_until(is_deleted, "the objects of the deleted job are deleted")


def test_restart_of_operator_changes_nothing(jobs: Jobs) -> None:
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


def test_mistyped_image_is_named_and_can_be_corrected_while_suspended(jobs: Jobs) -> None:
    """The gang is released meanwhile, and nothing counts as a failure."""
    image = jobs.cluster.image("trainer")
    policy = {"pendingTimeoutSeconds": 5, "terminationGracePeriodSeconds": 1}
    workers = {"image": f"{image}-typo"}
    name = jobs.apply(tiny("typo", storage("typo"), nodes=2, steps=5, workers=workers, runPolicy=policy))
    status = jobs.wait(name, "its reason", lambda status: status.get("reason") in ("ErrImagePull", "ImagePullBackOff"))
    # Of the same status: the pods are released some seconds later.
    [message] = [condition["message"] for condition in status["conditions"] if condition["type"] == "PodsReady"]
    assert "cannot pull its image: " in message
    assert f"{image}-typo" in message
    jobs.wait(name, "its release", lambda status: "retryTime" in status.get("pending", {}), seconds=60)
    wait_until(lambda: not jobs.pods(name), "its pods are gone")
    _, row = (line.split() for line in jobs.kubectl("get", "ftj", name).splitlines())
    assert row[:2] == [name, "Pending"]
    assert row[2] in ("ErrImagePull", "ImagePullBackOff")

    jobs.patch(name, {"runPolicy": {"suspend": True}})
    jobs.wait_for_phase(name, "Suspended")
    jobs.patch(name, {"workers": {"image": image}})
    jobs.patch(name, {"runPolicy": {"suspend": False}})
    status = jobs.wait_for_phase(name, "Succeeded", seconds=240)
    assert status["restarts"]["total"] == 0
    assert "reason" not in status
    jobs.kubectl("delete", "ftj", name)


def test_replaces_failed_pod_until_backoff_limit(jobs: Jobs, failing: dict[str, str]) -> None:
    """An unreachable endpoint may recover, so the pod is retried within backoffLimit."""
    reason, message = wait_for_failure(jobs, failing["endpoint"], seconds=240)
    assert reason == "BackoffLimitExceeded"
    assert "StorageUnavailable" in message
    assert "spec.checkpoint.storage" in message
    status = jobs.status("unreachable")
    assert status["restarts"]["failures"] == 2
    assert status["failure"]["reason"] == "StorageUnavailable"
    assert status["failure"]["pod"] == "unreachable-0-r"
    wait_until(lambda: list(jobs.pods("unreachable")) == ["unreachable-0-r"], "the newest failed pod is kept")
    assert "spec.checkpoint.storage" in jobs.kubectl("logs", "unreachable-0-r")


def test_failure_beside_a_living_sidecar_is_retried_by_rule(jobs: Jobs, failing: dict[str, str]) -> None:
    """The pods stay Running because their sidecar lives on. Without the rule the job would fail at the first failure."""
    reason, message = wait_for_failure(jobs, failing["bucket, retried"], seconds=240)
    assert reason == "BackoffLimitExceeded"
    assert "no-such-bucket" in message
    assert "(failurePolicy rule 1: Retry on reason InvalidConfiguration)" in message
    status = jobs.status("sidecar-failed")
    assert (status["restarts"]["failures"], status["failure"]["exitCode"]) == (2, 2)
    wait_until(lambda: not jobs.pods("sidecar-failed"), "its pods, whose sidecars live on, are deleted", seconds=90)


@pytest.mark.slow
def test_completes_beside_a_living_sidecar(jobs: Jobs, injected: dict[str, Any]) -> None:
    name = jobs.apply(tiny("sidecar-complete", storage("sidecar-complete"), steps=5, workers={"template": injected}))
    jobs.wait_for_phase(name, "Succeeded", seconds=240)
    pod = jobs.pods(name)[f"{name}-0"]
    states = {status["name"]: set(status["state"]) for status in pod["status"]["containerStatuses"]}
    assert (pod["status"]["phase"], states) == ("Running", {"trainer": {"terminated"}, SIDECAR: {"running"}})
    assert jobs.status(name)["progress"]["step"] == 5
    wait_until(lambda: not jobs.pods(name), "its pod, whose sidecar lives on, is deleted", seconds=90)


def test_fails_at_deadline(jobs: Jobs) -> None:
    name = jobs.apply(tiny("late", storage("late"), steps=LONG, runPolicy={"activeDeadlineSeconds": 5}))
    reason, message = wait_for_failure(jobs, name)
    assert reason == "DeadlineExceeded"
    assert "activeDeadlineSeconds" in message


def test_waits_for_secret_and_is_deleted_after_ttl_but_not_its_model(jobs: Jobs, tmp_path: Path) -> None:
    """The pod gets the keys that storages read, and no other key of the Secret. An init container has the trainer's /work."""
    prepare = {"name": "prepare", "command": ["sh", "-c", "echo prepared > /work/by-init-container"]}
    job = tiny(
        "patient",
        storage("patient"),
        steps=5,
        checkpoint={"credentials": "comes-later"},
        workers={"template": {"initContainers": [prepare]}},
        runPolicy={"ttlSecondsAfterFinished": 3},
    )
    name = jobs.apply(job)

    def is_reported() -> bool:
        conditions = jobs.status(name).get("conditions", [])
        return any(condition["reason"] == "SecretNotFound" for condition in conditions)

    wait_until(is_reported, "a condition reports the missing Secret")
    message = jobs.condition(name, "PodsReady")["message"]
    assert "spec.checkpoint.credentials" in message
    assert "comes-later" in message
    assert not jobs.pods(name)
    jobs.create_secret("comes-later", jobs.secret | {"token": "of a service account"})

    def is_running() -> bool:
        return any(pod["status"].get("phase") == "Running" for pod in jobs.pods(name).values())

    wait_until(is_running, "its pod runs", seconds=60)
    script = "ls /etc/finetune-credentials/comes-later && cat /work/by-init-container"
    printed = jobs.kubectl("exec", f"{name}-0", "--container=trainer", "--", "sh", "-c", script)
    assert printed.split() == [*sorted(jobs.secret), "prepared"]

    wait_until(lambda: name not in jobs.kubectl("get", "ftj", "--output=name"), "the job is deleted", seconds=180)
    model = [entry.path for entry in jobs.store(storage(name), tmp_path).list("model")]
    assert any(path.endswith("model.safetensors") for path in model)
    wait_until(lambda: not jobs.pods(name), "its pods are deleted")


def test_invalid_spec_that_passes_the_schema_fails_at_once(jobs: Jobs) -> None:
    name = jobs.apply(tiny("twice", storage("twice"), deepspeed={"config": {"train_batch_size": 4}}))
    reason, message = wait_for_failure(jobs, name, seconds=30)
    assert reason == "InvalidConfiguration"
    assert "spec.deepspeed: config.train_batch_size is decided by training.batchSize: set that" in message
    assert not jobs.pods(name)


def test_missing_bucket_fails_at_once(jobs: Jobs, failing: dict[str, str]) -> None:
    name = failing["bucket"]
    reason, message = wait_for_failure(jobs, name)
    assert reason == "InvalidConfiguration"
    assert "spec.checkpoint.storage" in message
    assert "no-such-bucket" in message
    assert jobs.status(name)["restarts"]["total"] == 0


def test_malformed_data_fails_at_once_with_file_and_line(jobs: Jobs, failing: dict[str, str]) -> None:
    reason, message = wait_for_failure(jobs, failing["data"])
    assert reason == "InvalidData"
    assert "rows.jsonl:2" in message


@pytest.mark.slow
def test_does_not_touch_checkpoints_of_another_run(jobs: Jobs, tmp_path: Path) -> None:
    first = jobs.apply(tiny("seed-one", storage("seeds"), steps=10))
    jobs.wait_for_phase(first, "Succeeded", seconds=180)
    store = jobs.store(storage("seeds"), tmp_path)
    before = {entry.path: entry.size for entry in store.list()}

    second = jobs.apply(tiny("seed-two", storage("seeds"), steps=10, training={"seed": 2}))
    reason, message = wait_for_failure(jobs, second)
    assert reason == "InvalidConfiguration"
    assert "spec.training.seed" in message
    assert {entry.path: entry.size for entry in store.list()} == before
