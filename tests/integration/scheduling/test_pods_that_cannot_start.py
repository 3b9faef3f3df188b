"""Gangs of which a part cannot start, quotas, and kept pods, with the real API server, scheduler and controllers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.waiting import wait_until

from finetune_trainer.protocol.outcome import Outcome, Reason

COMPLETE = Outcome(reason=Reason.COMPLETE)
pytestmark = pytest.mark.timeout(600)


def job(name: str, cpu: str, nodes: int = 2, **run_policy: Any) -> dict[str, Any]:
    """A job whose pods request this much CPU; it releases them after five seconds."""
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": 4}}
    policy = {"pendingTimeoutSeconds": 5, "terminationGracePeriodSeconds": 1} | run_policy
    return tiny(name, f"s3://bucket/{name}", nodes=nodes, workers={"resources": resources}, runPolicy=policy)


def occupy(jobs: Jobs, node: str, cpu: str) -> None:
    """Use CPU of a node with another pod."""
    container = {"name": "c", "image": "none", "resources": {"requests": {"cpu": cpu}}}
    spec = {"nodeName": node, "containers": [container]}
    jobs.kubectl(
        "apply", "--filename=-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"other-{node}"}, "spec": spec}),
    )  # fmt: skip


def end(jobs: Jobs, pod: str, phase: str, exit_code: int) -> None:
    """Let the trainer container of a pod end, as the kubelet reports it."""
    message = "" if exit_code else COMPLETE.model_dump_json(by_alias=True)
    state = {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message}}
    containers = [{"name": "trainer", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}]
    patch = json.dumps({"status": {"phase": phase, "containerStatuses": containers}})
    jobs.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", f"--patch={patch}")


def pending(status: dict[str, Any]) -> dict[str, Any]:
    """status.pending."""
    return dict(status.get("pending") or {})


def test_two_jobs_where_three_pods_fit_finish_one_after_the_other(jobs: Jobs) -> None:
    """Without gang scheduling: the job that got one place of three gives it back, and runs when the other one is done."""
    occupy(jobs, "node-2", "1")
    names = [jobs.apply(job(name, "900m")) for name in ("a", "b")]
    wait_until(lambda: any(jobs.status(name).get("phase") == "Running" for name in names), "one job runs")
    winner, loser = sorted(names, key=lambda name: jobs.status(name).get("phase") != "Running")
    jobs.wait(loser, "its release", lambda status: "retryTime" in pending(status), seconds=60)
    wait_until(lambda: not jobs.pods(loser), "its pods are gone")
    status = jobs.status(loser)
    assert (status["phase"], status["reason"]) == ("Pending", "Unschedulable")
    assert "cannot be scheduled: " in jobs.condition(loser, "PodsReady")["message"]
    assert "The pods were released at " in jobs.condition(loser, "PodsReady")["message"]
    columns, row = (line.split() for line in jobs.kubectl("get", "ftj", loser).splitlines())
    assert (columns[:3], row[:3]) == (["NAME", "PHASE", "REASON"], [loser, "Pending", "Unschedulable"])
    end(jobs, f"{winner}-0", "Succeeded", 0)
    jobs.wait_for_phase(winner, "Succeeded")
    jobs.kubectl("delete", "ftj", winner, "--wait=true")
    status = jobs.wait(loser, "Running", lambda status: status.get("phase") == "Running", seconds=240)
    assert "pending" not in status
    assert "reason" not in status


def test_job_restarts_although_its_own_objects_use_up_the_quota(jobs: Jobs) -> None:
    """The API server checks quotas before names: it rejects a request for an object that exists as one too many."""
    name = jobs.apply(job("full", "100m"))
    jobs.wait_for_phase(name, "Running")
    counts = {}
    for kind in ("services", "pods"):
        counts[kind] = str(len(json.loads(jobs.kubectl("get", kind, "--output=json"))["items"]))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": counts}}
    jobs.kubectl("apply", "--filename=-", stdin=json.dumps(quota))

    def used() -> Any:
        return json.loads(jobs.kubectl("get", "resourcequota", "full", "--output=json")).get("status", {}).get("used")

    wait_until(lambda: used() == counts, "the quota is used up")
    for number in (1, 2):
        jobs.kubectl("delete", "pod", f"{name}-1", "--wait=true")
        status = jobs.wait(name, "a replacement", lambda status, n=number: status["restarts"]["disruptions"] == n)
        jobs.wait_for_phase(name, "Running")
    assert status["restarts"]["failures"] == 0

    other = jobs.apply(job("other", "100m"))
    jobs.wait(other, "QuotaExceeded", lambda status: status.get("reason") == "QuotaExceeded")
    assert "exceeded quota: full" in jobs.condition(other, "PodsReady")["message"]


def test_failed_pod_is_kept_without_an_address(jobs: Jobs) -> None:
    name = jobs.apply(job("kept", "100m", backoffLimit=1))
    jobs.wait_for_phase(name, "Running")
    end(jobs, f"{name}-1", "Running", 1)  # the kubelet reports the end of the container before that of the pod
    jobs.wait(name, "the failure", lambda status: status["restarts"]["failures"] == 1)
    assert sorted(jobs.pods(name)) == ["kept-0", "kept-1"]
    end(jobs, f"{name}-1", "Failed", 1)
    jobs.wait_for_phase(name, "Running")
    assert sorted(jobs.pods(name)) == ["kept-0", "kept-1", "kept-1-r"]
    assert jobs.pods(name)["kept-1-r"]["spec"]["hostname"] == "kept-1"

    def addresses() -> list[tuple[str, str]]:
        listed = json.loads(
            jobs.kubectl("get", "endpointslices", "--selector=kubernetes.io/service-name=finetune-trainers", "--output=json")
        )
        endpoints = [endpoint for item in listed["items"] for endpoint in item.get("endpoints") or ()]
        found = [(endpoint["hostname"], endpoint["targetRef"]["name"]) for endpoint in endpoints]
        return sorted(item for item in found if item[0].startswith(name))

    wait_until(lambda: addresses() == [("kept-0", "kept-0"), ("kept-1", "kept-1-r")], "one pod has each name")
    end(jobs, f"{name}-1-r", "Failed", 1)
    jobs.wait_for_phase(name, "Failed")
    wait_until(lambda: list(jobs.pods(name)) == ["kept-1-r"], "only the newest failed pod is kept")


def test_pods_that_vanish_while_pending_are_backed_off_and_end(jobs: Jobs) -> None:
    name = jobs.apply(job("vanishing", "3", nodes=1, pendingRetryLimit=1))
    jobs.wait(name, "Unschedulable", lambda status: status.get("reason") == "Unschedulable")
    jobs.kubectl("delete", "pod", f"{name}-0", "--wait=true")
    jobs.wait(name, "the first deletion", lambda status: pending(status).get("releases") == 1)
    wait_until(lambda: jobs.pods(name), "the pod is created again at once")
    jobs.kubectl("delete", "pod", f"{name}-0", "--wait=true")
    jobs.wait_for_phase(name, "Failed")
    condition = jobs.condition(name, "Failed")
    assert condition["reason"] == "PendingRetryLimitExceeded"
    assert f"Pod {name}-0 was deleted by another client" in condition["message"]


def test_missing_claim_is_named_next_to_the_phase(jobs: Jobs) -> None:
    document = job("no-claim", "100m", nodes=1)
    volumes = [{"name": "extra", "persistentVolumeClaim": {"claimName": "typo"}}]
    document["spec"]["workers"]["template"] = {"volumes": volumes}
    name = jobs.apply(document)
    jobs.wait(name, "VolumeNotFound", lambda status: status.get("reason") == "VolumeNotFound")
    assert 'persistentvolumeclaim "typo" not found' in jobs.condition(name, "PodsReady")["message"]
