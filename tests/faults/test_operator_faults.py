"""Faults of the operator: it is killed, absent, or upgraded while jobs run."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import pytest
from tests.support.cluster_jobs import Jobs, tiny
from tests.support.cluster_run import ClusterRun
from tests.support.installation import NEWER_FIELD, newer_chart, roll_back, upgrade
from tests.support.operator_faults import kill_operator, operator_pods, wait_until_replaced, without_operator
from tests.support.reliability import Measure


def test_killed_operator(run: ClusterRun, measure: Measure) -> None:
    """An operator that is killed while it replaces a pod goes on when it is restarted, without a second pod."""
    restarts = run.restarts()
    with measure.fault(13, "the operator is killed while it replaces a pod", run):
        run.delete_pod(1, "--grace-period=0", "--force")
        kill_operator(run.jobs.cluster)
    assert run.restarts() == {**restarts, "disruptions": restarts["disruptions"] + 1}
    assert len(run.uids()) == 2, "one pod a node"


def test_upgraded_operator(run: ClusterRun, measure: Measure) -> None:
    """An upgrade of the chart, with a changed CRD and a new pod of the operator, does not touch a run."""
    pods, restarts = run.uids(), run.restarts()
    before = {pod["metadata"]["uid"] for pod in operator_pods(run.jobs.cluster)}
    with measure.fault(23, "the CRD and the operator are upgraded", run, restarts=0):
        run.jobs.kubectl("annotate", "crd", "finetunejobs.finetune-operator.io", f"fault-test={time.time()}", "--overwrite")
        upgrade(run.jobs.cluster, "--set-string=podAnnotations.fault-test=upgraded")
        run.wait(
            "progress from the new operator", lambda: run.status()["progress"]["step"] > run.log.update().highest_step - 50
        )
    wait_until_replaced(run.jobs.cluster, before)
    assert run.uids() == pods
    assert run.restarts() == restarts


@pytest.mark.timeout(1200)
def test_rolled_back_operator(jobs: Jobs, run: ClusterRun, measure: Measure, tmp_path: Path) -> None:
    """A rollback to a version that knows less of the status does not touch a run, and runs no finished job again."""
    cluster = run.jobs.cluster
    finished = jobs.apply(tiny("finished", f"s3://finetune/faults/{uuid.uuid4().hex[:8]}", steps=5))
    ended = jobs.wait_for_phase(finished, "Succeeded", seconds=240)
    ended_pods = {pod["metadata"]["uid"] for pod in jobs.pods(finished).values()}
    pods, restarts = run.uids(), run.restarts()
    with measure.fault(23, "the CRD and the operator are rolled back", run, restarts=0):
        upgrade(cluster, "--set-string=podAnnotations.fault-test=newer", chart=newer_chart(tmp_path))
        for owner, name in ((jobs, finished), (run.jobs, run.name)):
            patch = json.dumps({"status": {NEWER_FIELD: "written by the newer version"}})
            owner.kubectl("patch", "ftj", name, "--subresource=status", "--type=merge", f"--patch={patch}")
            assert NEWER_FIELD in owner.status(name)
        before = {pod["metadata"]["uid"] for pod in operator_pods(cluster)}
        roll_back(cluster)
        run.wait(
            "progress from the older operator", lambda: run.status()["progress"]["step"] > run.log.update().highest_step - 50
        )
    wait_until_replaced(cluster, before)
    assert (run.uids(), run.restarts()) == (pods, restarts)
    status = jobs.status(finished)
    assert {key: status[key] for key in ("phase", "completionTime", "restarts")} == {
        key: ended[key] for key in ("phase", "completionTime", "restarts")
    }
    assert NEWER_FIELD not in status, "the older CRD does not have it"
    assert {pod["metadata"]["uid"] for pod in jobs.pods(finished).values()} == ended_pods


@pytest.mark.timeout(1200)
def test_jobs_change_without_operator(jobs: Jobs, measure: Measure) -> None:
    """Jobs that are created, suspended or deleted, or that finish, while no operator runs are as they should be afterwards.

    That includes one whose pod is deleted after it has succeeded.
    """
    storage = f"s3://finetune/faults/{uuid.uuid4().hex[:8]}"
    finishing = jobs.apply(tiny("finishing", f"{storage}/finishing", steps=200))
    forgotten = jobs.apply(tiny("forgotten", f"{storage}/forgotten", steps=250))
    suspended = jobs.apply(tiny("suspended", f"{storage}/suspended", steps=100_000))
    deleted = jobs.apply(tiny("deleted", f"{storage}/deleted", runPolicy={"suspend": True}))
    jobs.wait_for_phase(deleted, "Suspended")
    jobs.wait_for_step(suspended, 5)
    jobs.wait_for_step(finishing, 5)
    jobs.wait_for_step(forgotten, 5)
    with without_operator(jobs.cluster):
        jobs.patch(suspended, {"runPolicy": {"suspend": True}})
        jobs.kubectl("delete", "ftj", deleted)
        created = jobs.apply(tiny("created", f"{storage}/created", steps=5))
        jobs.kubectl("wait", "pod", f"{finishing}-0", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
        assert jobs.status(finishing)["phase"] == "Running", "nobody writes the status"
        jobs.kubectl("wait", "pod", f"{forgotten}-0", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
        jobs.kubectl("delete", "pod", f"{forgotten}-0")
        assert jobs.status(created) == {}
    returned = time.monotonic()
    status = jobs.wait_for_phase(finishing, "Succeeded", seconds=60)
    jobs.wait_for_phase(suspended, "Suspended", seconds=60)
    measure.record(15, "jobs change while no operator runs", time.monotonic() - returned)
    assert status["restarts"]["total"] == 0, "a finished run is recorded once and not repeated"
    assert status["progress"]["step"] == 200
    assert jobs.status(suspended)["restarts"]["total"] == 0
    assert jobs.pods(deleted) == {}
    status = jobs.wait_for_phase(forgotten, "Succeeded", seconds=120)
    assert "nothing is trained or exported again" in jobs.kubectl("logs", f"{forgotten}-0")
    assert status["progress"]["step"] == 250
    assert status["metrics"]["loss"] > 0
    assert status["restarts"]["failures"] == 0
    status = jobs.wait_for_phase(created, "Succeeded", seconds=240)
    assert status["restarts"]["total"] == 0
