"""What the end of a pod means: real pod statuses, their reason, verdict and message."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from tests.support.pod_statuses import (
    RUNNING,
    beside_sidecar,
    body,
    conditions,
    container,
    disruption_target,
    ended,
    evicted,
    rejected,
    starting,
    terminated,
)

from finetune_operator.api.failure_policy import FAILURE_REASONS
from finetune_operator.reconcile import parse_pod
from finetune_operator.reconcile.pod_failure import Verdict, classify
from finetune_trainer.protocol.outcome import Outcome, Reason

FAIL, RETRY, DISRUPTION = Verdict.FAIL, Verdict.RETRY, Verdict.DISRUPTION
FETCH = ({"name": "fetch"},)


def outcome(reason: Reason, message: str = "") -> str:
    return Outcome(reason=reason, message=message).model_dump_json(by_alias=True, exclude_none=True)


def stopping(target: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """A pod that Kubernetes stops."""
    return {
        "phase": "Running",
        "conditions": [*conditions(ready=True), target],
        "containerStatuses": [container("trainer", state)],
    }


class Case(NamedTuple):
    """The status of a pod that failed, and what follows."""

    name: str
    status: dict[str, Any]
    reason: str
    verdict: Verdict
    message: str
    init_containers: tuple[dict[str, Any], ...] = ()


MEMORY_PRESSURE = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 84512Ki. Container trainer was using 31Gi, "
    "request is 16Gi, has larger consumption of memory. "
)

CASES = [
    Case("crash", ended(terminated(1, message="Traceback\nKeyError: 'x'")), "Crashed", RETRY, "log is: KeyError: 'x'"),
    Case("crash beside a sidecar", beside_sidecar(terminated(1)), "Crashed", RETRY, "exit code 1 without a termination"),
    Case(
        "outcome beside a sidecar",
        beside_sidecar(terminated(3, message=outcome(Reason.INVALID_DATA, "a.jsonl:2: no text"))),
        "InvalidData",
        FAIL,
        "a.jsonl:2: no text",
    ),
    Case("out of memory", ended(terminated(137, "OOMKilled")), "OutOfMemory", FAIL, "raise workers.resources.limits.memory"),
    Case("another program", ended(terminated(0, "Completed", "hello")), "OutcomeMissing", RETRY, "without reporting that"),
    Case("another program beside a sidecar", beside_sidecar(terminated(0)), "OutcomeMissing", RETRY, "set workers.image to"),
    Case("killed", ended(terminated(137)), "Crashed", RETRY, "was killed by SIGKILL"),
    # The node was rebooted: containerd (and CRI-O, without its own reason) found the container gone.
    Case("reboot, containerd", ended(terminated(255, "Unknown")), "Disrupted", DISRUPTION, "node node-1 or its container"),
    Case("reboot, CRI-O", ended(terminated(255)), "Disrupted", DISRUPTION, "exit code 255, reason Error"),
    Case(
        "container lost by the kubelet",
        ended(terminated(137, "ContainerStatusUnknown", "The container could not be located when the pod was terminated")),
        "Disrupted",
        DISRUPTION,
        "the end of the container was not recorded (exit code 137, reason ContainerStatusUnknown)",
    ),
    Case(
        "node shutdown",
        ended(
            terminated(11, message=outcome(Reason.PREEMPTED_UNSAVED)),
            reason="Terminated",
            message="Pod was terminated in response to imminent node shutdown.",
        ),
        "Disrupted",
        DISRUPTION,
        "Terminated: Pod was terminated in response to imminent node shutdown",
    ),
    Case(
        "command not found",
        ended(terminated(128, "StartError", 'exec: "python": executable file not found in $PATH: unknown')),
        "StartError",
        RETRY,
        'could not be started: exec: "python": executable file not found in $PATH',
    ),
    Case(
        "drained",
        stopping(disruption_target("EvictionByEvictionAPI", "Eviction API: evicting"), RUNNING),
        "Disrupted",
        DISRUPTION,
        "EvictionByEvictionAPI: Eviction API: evicting",
    ),
    Case(
        "preempted, and crashed while it was stopped",
        stopping(disruption_target("PreemptionByScheduler", "default-scheduler: preempting"), terminated(1)),
        "Disrupted",
        DISRUPTION,
        "PreemptionByScheduler: default-scheduler: preempting",
    ),
    Case(
        "invalid data, found just before a preemption",
        stopping(
            disruption_target("PreemptionByScheduler", "default-scheduler: preempting"),
            terminated(3, message=outcome(Reason.INVALID_DATA, "a.jsonl:2: no text")),
        ),
        "InvalidData",
        FAIL,
        "a.jsonl:2: no text",
    ),
    Case(
        "node deleted",
        {
            "phase": "Failed",
            "conditions": [disruption_target("DeletionByPodGC", "PodGC: node no longer exists")],
            "containerStatuses": [container("trainer", RUNNING)],
        },
        "Disrupted",
        DISRUPTION,
        "DeletionByPodGC: PodGC: node no longer exists",
    ),
    Case(
        "memory pressure",
        evicted("The node was low on resource: memory. ", for_pressure=True),
        "Disrupted",
        DISRUPTION,
        "TerminationByKubelet: The node was low on resource: memory",
    ),
    Case(
        "memory pressure, above its request",
        evicted(MEMORY_PRESSURE, for_pressure=True),
        "Disrupted",
        DISRUPTION,
        "raise workers.resources.requests to what the pod uses",
    ),
    Case(
        "disk limit of the trainer container",
        evicted('Container trainer exceeded its local ephemeral storage limit "1Gi". ', for_pressure=False),
        "DiskLimitExceeded",
        RETRY,
        "raise workers.resources.limits.ephemeral-storage (Evicted: Container trainer exceeded",
    ),
    Case(
        "disk limit of a sidecar",
        evicted('Container istio-proxy exceeded its local ephemeral storage limit "1Gi". ', for_pressure=False),
        "DiskLimitExceeded",
        RETRY,
        "raise the limit of ephemeral-storage of the sidecar istio-proxy",
    ),
    Case(
        "disk limit of the pod",
        evicted("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", for_pressure=False),
        "DiskLimitExceeded",
        RETRY,
        "raise workers.resources.limits.ephemeral-storage",
    ),
    Case(
        "size of a volume",
        evicted('Usage of EmptyDir volume "cache" exceeds the limit "1Gi". ', for_pressure=False),
        "DiskLimitExceeded",
        RETRY,
        "raise emptyDir.sizeLimit of the volume cache",
    ),
    Case(
        "size of the scratch volume",
        evicted('Usage of EmptyDir volume "work" exceeds the limit "1Gi". ', for_pressure=False),
        "DiskLimitExceeded",
        RETRY,
        "raise workers.scratch.size (Evicted: Usage of EmptyDir",
    ),
    Case(
        "size of shared memory",
        evicted('Usage of EmptyDir volume "shm" exceeds the limit "1Gi". ', for_pressure=False),
        "DiskLimitExceeded",
        RETRY,
        "raise workers.sharedMemory (Evicted: Usage of EmptyDir",
    ),
    Case(
        "device plugin not up after a reboot",
        rejected(
            "UnexpectedAdmissionError",
            "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, which is "
            "unexpected",
        ),
        "Disrupted",
        DISRUPTION,
        "no healthy devices present",
    ),
    Case(
        "no room after all",
        rejected("OutOfcpu", "Node didn't have enough resource: cpu, requested: 1000, used: 1900, capacity: 2000"),
        "Disrupted",
        DISRUPTION,
        "OutOfcpu: Pod was rejected",
    ),
    Case(
        "node shuts down",
        rejected("NodeShutdown", "Pod was rejected as the node is shutting down."),
        "Disrupted",
        DISRUPTION,
        "NodeShutdown",
    ),
    Case(
        "labels of the node changed",
        rejected("NodeAffinity", "Predicate NodeAffinity failed"),
        "Disrupted",
        DISRUPTION,
        "NodeAffinity",
    ),
    Case(
        "CPUs cannot be aligned",
        rejected("TopologyAffinityError", "Resources cannot be allocated with Topology locality"),
        "PodRejected",
        RETRY,
        "the kubelet of node-1 rejected the pod because of its own fields: TopologyAffinityError: Pod was rejected: Resources",
    ),
    Case(
        "init container failed",
        starting(container("fetch", terminated(7, message="curl: (7) no route to host")), phase="Failed"),
        "InitContainerFailed",
        RETRY,
        "the init container fetch terminated with exit code 7; the last line of its log is: curl: (7) no route to host",
        FETCH,
    ),
    Case(
        "init container with ssh, which exits with 255",
        starting(container("fetch", terminated(255, message="ssh: connect to host data port 22: refused")), phase="Failed"),
        "InitContainerFailed",
        RETRY,
        "the init container fetch terminated with exit code 255; the last line of its log is: ssh: connect to host data",
        FETCH,
    ),
    Case(
        "init container out of memory",
        starting(container("fetch", terminated(137, "OOMKilled")), phase="Failed"),
        "InitContainerFailed",
        RETRY,
        "the init container fetch exceeded its memory limit (OOMKilled)",
        FETCH,
    ),
    Case(
        "reboot during an init container",
        starting(container("fetch", terminated(255, "Unknown")), phase="Failed"),
        "Disrupted",
        DISRUPTION,
        "the end of the container was not recorded",
        FETCH,
    ),
    Case("never started", {"phase": "Failed"}, "Disrupted", DISRUPTION, "failed before its container started"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_classifies(case: Case) -> None:
    failure = classify(parse_pod(body(case.status, init_containers=case.init_containers)))
    assert (failure.reason, failure.verdict) == (case.reason, case.verdict)
    assert case.message in failure.message
    assert failure.reason in FAILURE_REASONS, "a rule of failurePolicy can match it"


def test_deletion_by_another_client_is_a_disruption() -> None:
    pod = parse_pod(body(ended(terminated(137)), deletionTimestamp="2026-01-01T12:02:00Z"))
    failure = classify(pod)
    assert (failure.reason, failure.verdict) == ("PodDeleted", DISRUPTION)
