"""Queued jobs with the real Kueue: admission as a whole, preemption, suspension, and the end of a job."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.integration.scheduling.conftest import Operator
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.cluster_queues import apply, queue, quota, workload, workload_condition
from tests.support.fake_kubelet import complete, write_status
from tests.support.pod_statuses import container, terminated

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("queues")]

FLAVOR: dict[str, Any] = {
    "nodeLabels": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "example.com/dedicated", "operator": "Exists", "effect": "NoSchedule"}],
}


def job(name: str, **scheduling: str) -> dict[str, Any]:
    """A job with two pods that request 100m of CPU each."""
    return tiny(name, f"s3://bucket/{name}", nodes=2, scheduling=scheduling)


def wait_for_pods(jobs: Jobs, name: str) -> dict[str, dict[str, Any]]:
    """Wait until both pods of a job exist."""
    jobs.wait(name, "two pods", lambda _: len(jobs.pods(name)) == 2)
    return jobs.pods(name)


def test_two_jobs_of_which_one_fits(jobs: Jobs) -> None:
    """The second job has no pod until the first one has finished; the pods get what the flavor asks for."""
    with queue(jobs, cpu="300m", flavor=FLAVOR) as name:
        first = jobs.apply(job("first", queueName=name))
        for pod in wait_for_pods(jobs, first).values():
            assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
            assert FLAVOR["tolerations"][0] in pod["spec"]["tolerations"]
        second = jobs.apply(job("second", queueName=name))
        jobs.wait(second, "Kueue's explanation", lambda _: "insufficient" in jobs.condition(second, "QuotaReserved")["message"])
        assert jobs.condition(second, "QuotaReserved")["reason"] == "Queued"
        assert (jobs.status(second)["phase"], jobs.pods(second)) == ("Pending", {})
        jobs.wait_for_phase(first, "Running")
        jobs.wait(first, "PodsReady", lambda _: workload_condition(jobs, first, "PodsReady") == "True")
        complete(jobs, first)
        jobs.wait_for_phase(first, "Succeeded")
        wait_for_pods(jobs, second)
        assert workload_condition(jobs, first, "Finished") == "True"
        jobs.kubectl("delete", "ftj", second, "--wait=true")


def test_replaced_pod_has_the_flavor_after_the_operator_was_restarted(jobs: Jobs, operator: Operator) -> None:
    with queue(jobs, cpu="300m", flavor=FLAVOR) as name:
        only = jobs.apply(job("only", queueName=name))
        wait_for_pods(jobs, only)
        jobs.wait_for_phase(only, "Running")
        operator.stop()
        operator.start()
        write_status(jobs, f"{only}-1", {"phase": "Failed", "containerStatuses": [container("trainer", terminated(1))]})
        jobs.wait(only, "a replacement", lambda _: f"{only}-1-r" in jobs.pods(only))
        replacement = jobs.pods(only)[f"{only}-1-r"]
        assert replacement["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert FLAVOR["tolerations"][0] in replacement["spec"]["tolerations"]
        jobs.wait(only, "a restart", lambda status: status["restarts"]["total"] == 1)
        jobs.wait_for_phase(only, "Running")


def test_resumed_job_runs_on_the_flavor_that_admits_it_again(jobs: Jobs) -> None:
    with queue(jobs, cpu="300m", flavor=FLAVOR) as name:
        moved = jobs.apply(job("moved", queueName=name))
        wait_for_pods(jobs, moved)
        cluster_queue = f"clusterqueue.kueue.x-k8s.io/{jobs.namespace}-{name}"
        other = {"name": f"{jobs.namespace}-other"}
        apply(jobs, {"kind": "ResourceFlavor", "metadata": other, "spec": {"nodeLabels": {"kubernetes.io/hostname": "node-2"}}})
        replace_name = [{"op": "replace", "path": "/spec/resourceGroups/0/flavors/0/name", "value": other["name"]}]
        jobs.patch(moved, {"runPolicy": {"suspend": True}})
        jobs.wait(moved, "no pods", lambda _: jobs.pods(moved) == {})
        jobs.kubectl("patch", cluster_queue, "--type=json", f"--patch={json.dumps(replace_name)}")
        jobs.patch(moved, {"runPolicy": {"suspend": False}})
        for pod in wait_for_pods(jobs, moved).values():
            assert pod["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "node-2"}
            assert FLAVOR["tolerations"][0] not in pod["spec"]["tolerations"]
    jobs.kubectl("delete", "resourceflavor.kueue.x-k8s.io", other["name"], "--timeout=60s")


def test_scaled_job_uses_the_nodes_that_were_admitted(jobs: Jobs) -> None:
    """The API server refuses a change of `nodes` beside `queueName`, but a label may name the queue, too."""
    with queue(jobs, cpu="1") as name:
        workers, policy = {"minNodes": 1}, {"terminationGracePeriodSeconds": 1}
        document = tiny("label", "s3://bucket/label", nodes=2, workers=workers, training={"batchSize": 8}, runPolicy=policy)
        document["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": name}
        scaled = jobs.apply(document)
        jobs.wait_for_phase(scaled, "Running")
        jobs.kubectl("scale", "ftj", scaled, "--replicas=4")
        status = jobs.wait(scaled, "the reason", lambda status: status.get("reason") == "AdmittedSmaller")
        assert (status["phase"], status["workers"]["summary"], len(jobs.pods(scaled))) == ("Running", "2/4", 2)
        jobs.patch(scaled, {"runPolicy": {"suspend": True}})
        jobs.wait(scaled, "no pods", lambda _: jobs.pods(scaled) == {})
        jobs.patch(scaled, {"runPolicy": {"suspend": False}})
        jobs.wait(scaled, "four nodes", lambda status: status["workers"]["summary"] == "4/4" and "reason" not in status)
        assert workload(jobs, scaled)["spec"]["podSets"][0]["count"] == 4


def test_preempted_job_comes_back(jobs: Jobs) -> None:
    """The job of higher priority gets the quota when the last pod of the other has stopped."""
    with queue(jobs, cpu="300m") as name:
        low = jobs.apply(job("low", queueName=name, workloadPriorityClass="low"))
        before = {pod["metadata"]["uid"] for pod in wait_for_pods(jobs, low).values()}
        high = jobs.apply(job("high", queueName=name, workloadPriorityClass="high"))
        wait_for_pods(jobs, high)
        assert jobs.pods(low) == {}
        status = jobs.status(low)
        assert (status["phase"], status["restarts"]["total"], quota(status)[0]) == ("Pending", 0, "False")
        assert "admission" not in workload(jobs, low)["status"]
        complete(jobs, high)
        after = {pod["metadata"]["uid"] for pod in wait_for_pods(jobs, low).values()}
        assert not before & after
        jobs.wait_for_phase(low, "Running")
        assert jobs.status(low)["restarts"]["total"] == 0


def test_suspended_job_gives_its_quota_to_the_next(jobs: Jobs) -> None:
    with queue(jobs, cpu="300m") as name:
        first = jobs.apply(job("first", queueName=name))
        wait_for_pods(jobs, first)
        second = jobs.apply(job("second", queueName=name))
        jobs.patch(first, {"runPolicy": {"suspend": True}})
        wait_for_pods(jobs, second)
        assert workload(jobs, first)["spec"]["active"] is False
        assert quota(jobs.status(first)) == ("False", "Suspended")
        jobs.patch(first, {"runPolicy": {"suspend": False}})
        jobs.wait(first, "a place in the queue", lambda status: quota(status) == ("False", "Queued"))
        complete(jobs, second)
        wait_for_pods(jobs, first)


def test_deleted_workload_queues_the_job_again(jobs: Jobs) -> None:
    with queue(jobs, cpu="300m") as name:
        only = jobs.apply(job("only", queueName=name))
        wait_for_pods(jobs, only)
        uid = workload(jobs, only)["metadata"]["uid"]
        jobs.kubectl("delete", "workloads.kueue.x-k8s.io", "--all")
        jobs.wait(only, "a new Workload", lambda _: _uid(jobs, only) not in ("", uid))
        wait_for_pods(jobs, only)


def _uid(jobs: Jobs, name: str) -> str:
    uids = "--output=jsonpath={.items[*].metadata.uid}"
    return jobs.kubectl("get", "workloads.kueue.x-k8s.io", f"--selector=finetune-operator.io/job={name}", uids)


def test_names_a_queue_that_does_not_exist(jobs: Jobs) -> None:
    lost = jobs.apply(job("lost", queueName="nowhere"))
    jobs.wait(lost, "the reason", lambda status: quota(status) == ("False", "Inadmissible"))
    assert jobs.condition(lost, "QuotaReserved")["message"] == (
        "scheduling.queueName: LocalQueue nowhere doesn't exist: create it or correct the name."
    )
    jobs.kubectl("delete", "ftj", lost, "--wait=true")
    jobs.kubectl("wait", "workloads.kueue.x-k8s.io", "--all", "--for=delete", "--timeout=60s")
