"""The end of a pod, with a real API server: a sidecar is injected on creation, and the test writes what a kubelet would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.fake_kubelet import write_status
from tests.support.pod_statuses import RUNNING, conditions, container, evicted, terminated
from tests.support.sidecar_injection import LABELS, SIDECAR, sidecar_injection

from finetune_trainer.protocol.outcome import Outcome, Reason

pytestmark = pytest.mark.timeout(600)


def job(name: str, **run_policy: Any) -> dict[str, Any]:
    """A job of one pod, into which a sidecar is injected."""
    return tiny(name, f"s3://bucket/{name}", workers={"template": {"labels": LABELS}}, runPolicy=run_policy)


def run_pod(jobs: Jobs, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Apply a job, and return its name and its pod when it runs."""
    name = jobs.apply(document)
    jobs.wait_for_phase(name, "Running")
    pod = jobs.pods(name)[f"{name}-0"]
    assert [item["name"] for item in pod["spec"]["containers"]] == ["trainer", SIDECAR]
    return name, pod


def beside_sidecar(trainer: dict[str, Any]) -> dict[str, Any]:
    """The status of a pod of which only the trainer container has terminated."""
    statuses = [container("trainer", trainer), container(SIDECAR, RUNNING)]
    return {"phase": "Running", "conditions": conditions(ready=False), "containerStatuses": statuses}


def restarts(count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status.get("restarts", {}).get("total") == count


def is_replaced(jobs: Jobs, name: str, pod: dict[str, Any]) -> bool:
    """Whether the job has a running pod other than this one, which is gone because its sidecar would live on."""
    uids = {item["metadata"]["uid"] for item in jobs.pods(name).values()}
    return bool(uids) and pod["metadata"]["uid"] not in uids


def test_crash_beside_a_living_sidecar_is_counted(jobs: Jobs) -> None:
    with sidecar_injection(jobs):
        name, pod = run_pod(jobs, job("crash"))
        write_status(jobs, pod["metadata"]["name"], beside_sidecar(terminated(1)))
        status = jobs.wait(name, "a restart", restarts(1))
        assert (status["restarts"]["failures"], status["failure"]["reason"]) == (1, "Crashed")
        jobs.wait(name, "a new pod", lambda _: is_replaced(jobs, name, pod))


def test_completes_beside_a_living_sidecar(jobs: Jobs) -> None:
    outcome = Outcome(reason=Reason.COMPLETE, model="s3://bucket/complete/model").model_dump_json(by_alias=True)
    with sidecar_injection(jobs):
        name, pod = run_pod(jobs, job("complete"))
        write_status(jobs, pod["metadata"]["name"], beside_sidecar(terminated(0, "Completed", outcome)))
        status = jobs.wait_for_phase(name, "Succeeded")
    assert status["model"] == "s3://bucket/complete/model"
    jobs.wait(name, "no pod", lambda _: not jobs.pods(name))


def test_program_that_exits_at_once_is_no_success(jobs: Jobs) -> None:
    """An image whose entrypoint wraps or replaces the trainer: the pod is Succeeded, but nothing was trained."""
    with sidecar_injection(jobs):
        name, pod = run_pod(jobs, job("wrapped", backoffLimit=0))
        write_status(
            jobs, pod["metadata"]["name"], beside_sidecar(terminated(0, "Completed", "hello")) | {"phase": "Succeeded"}
        )
        status = jobs.wait_for_phase(name, "Failed")
    assert (status["failure"]["reason"], status["failure"]["exitCode"]) == ("OutcomeMissing", 0)


def test_rule_ends_the_job_by_exit_code(jobs: Jobs) -> None:
    rule = {"action": "Fail", "onExitCodes": {"operator": "In", "values": [42]}}
    with sidecar_injection(jobs):
        name, pod = run_pod(jobs, job("rule", failurePolicy={"rules": [rule]}))
        write_status(jobs, pod["metadata"]["name"], beside_sidecar(terminated(42)))
        jobs.wait_for_phase(name, "Failed")
    assert "(failurePolicy rule 1: Fail on exit code 42)" in jobs.condition(name, "Failed")["message"]


def test_eviction_for_the_pods_own_disk_limit_is_a_failure(jobs: Jobs) -> None:
    message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
    counted = restarts_after(jobs, evicted(message, for_pressure=False))
    assert (counted["byReason"], counted["failures"], counted["disruptions"]) == ({"DiskLimitExceeded": 1}, 1, 0)


def test_eviction_for_pressure_is_a_disruption(jobs: Jobs) -> None:
    counted = restarts_after(jobs, evicted("The node was low on resource: memory. ", for_pressure=True))
    assert (counted["byReason"], counted["failures"], counted["disruptions"]) == ({"Disrupted": 1}, 0, 1)
    assert len(counted["recentDisruptions"]) == 1


def restarts_after(jobs: Jobs, status: dict[str, Any]) -> dict[str, Any]:
    """The restarts of a job whose pod ends with this status."""
    with sidecar_injection(jobs):
        name, pod = run_pod(jobs, job("evicted"))
        write_status(jobs, pod["metadata"]["name"], status)
        return dict(jobs.wait(name, "a restart", restarts(1))["restarts"])
