"""The operator is killed before and after each of its writes: the outcome is that of an operator that was never killed."""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from kubernetes.aio.client import ApiClient, Configuration
from tests.support.fake_kubernetes import KEY
from tests.support.killed_operator import READS, KilledOperator

from finetune_operator.api.conditions import format_timestamp
from finetune_operator.client.kubernetes import KubernetesClient
from finetune_operator.client.types import NodeState
from finetune_trainer.protocol.outcome import EXIT_POLICIES, Outcome, Reason

Step = Callable[[KilledOperator], object]
POLICY: dict[str, Any] = {"ttlSecondsAfterFinished": 60}
FLAVOR = {
    "metadata": {"name": "h100", "uid": "flavor"},
    "spec": {"nodeLabels": {"gpu": "h100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
}
QUEUED = {"scheduling": {"queueName": "team-queue"}}
GANG = {"scheduling": {"gang": "Native"}}
URGENT = {"workers": {"template": {"priorityClassName": "urgent"}}}
LARGER = {"workers": {"nodes": 3}, "training": {"batchSize": 24}}
ELASTIC = {"workers": {"minNodes": 1}}
RESIZING = {"elastic": {"shrinkAfterSeconds": 10, "growAfterSeconds": 60}}


def put(sections: dict[str, Any] | None = None, **run_policy: Any) -> Step:
    """A user creates or edits the job."""
    return lambda operator: operator.put(sections or {}, **POLICY | run_policy)


def delete(operator: KilledOperator) -> None:
    """A user deletes the job."""
    operator.client.collect_garbage()


def leave_queue(operator: KilledOperator) -> None:
    """A user removes the queue from a job that is suspended."""
    operator.put({}, **POLICY, suspend=True)


def run_all(operator: KilledOperator) -> None:
    """The kubelets run all pods."""
    for index, body in enumerate(operator.current_pods()):
        body["spec"].setdefault("nodeName", f"node-{index}")
        conditions = [{"type": condition, "status": "True"} for condition in ("Ready", "ContainersReady")]
        containers = [{"name": "trainer", "ready": True, "state": {"running": {"startedAt": operator.client.time}}}]
        operator.set_status(body, phase="Running", podIP="10.0.0.1", conditions=conditions, containerStatuses=containers)


def end(node: int, reason: Reason, **outcome: Any) -> Step:
    """The trainer of a node ends."""

    def step(operator: KilledOperator) -> None:
        message = Outcome(reason=reason, **outcome).model_dump_json(by_alias=True, exclude_none=True)
        terminated = {"exitCode": EXIT_POLICIES[reason].exit_code, "reason": "Error", "message": message}
        phase = "Succeeded" if reason is Reason.COMPLETE else "Failed"
        containers = [{"name": "trainer", "state": {"terminated": terminated}}]
        operator.set_status(operator.current_pods()[node], phase=phase, containerStatuses=containers)

    return step


def drain(operator: KilledOperator) -> None:
    """The node of the last pod is drained."""
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    operator.set_status(operator.current_pods()[-1], phase="Failed", conditions=[target])


def remove(operator: KilledOperator) -> None:
    """Another client removes the last pod."""
    del operator.client.objects["Pod", operator.current_pods()[-1]["metadata"]["name"]]


def cut_off(operator: KilledOperator) -> None:
    """The node of the last pod loses its network."""
    body = operator.current_pods()[-1]
    operator.client.nodes = [NodeState("node-0", True, True), NodeState(body["spec"]["nodeName"], False, False)]
    operator.silent.add(body["metadata"]["uid"])
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": operator.client.time}
    conditions = [ready, {"type": "ContainersReady", "status": "True"}]
    operator.set_status(body, **body["status"] | {"conditions": conditions})


def cannot_be_scheduled(operator: KilledOperator) -> None:
    """The scheduler finds no node for the last pod."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}
    operator.set_status(operator.current_pods()[-1], phase="Pending", conditions=[condition])


def complete(operator: KilledOperator) -> None:
    """All trainers end with the run."""
    for node in range(len(operator.current_pods()) - 1, 0, -1):
        end(node, Reason.COMPLETE)(operator)
    end(0, Reason.COMPLETE, model="s3://out/j/model", metrics={"loss": 1.5})(operator)


def advance(operator: KilledOperator) -> None:
    """Ten minutes pass."""
    operator.advance(10)


def admit(operator: KilledOperator) -> None:
    """Kueue admits the job to a flavor."""
    operator.client.objects["ResourceFlavor", "h100"] = copy.deepcopy(FLAVOR)
    count = workload(operator)["spec"]["podSets"][0]["count"]
    assignment = {"name": "main", "flavors": {"cpu": "h100", "memory": "h100"}, "count": count}
    admission = {"clusterQueue": "gpus", "podSetAssignments": [assignment]}
    changes = {"QuotaReserved": ("True", "QuotaReserved"), "Admitted": ("True", "Admitted")}
    if any(item["type"] == "Evicted" for item in workload(operator).get("status", {}).get("conditions", ())):
        changes["Evicted"] = ("False", "QuotaReserved")
    set_conditions(operator, changes, admission=admission)


def evict(reason: str) -> Step:
    """Kueue asks the job to give its quota back."""
    return lambda operator: set_conditions(operator, {"Evicted": ("True", reason)})


def workload(operator: KilledOperator) -> dict[str, Any]:
    """The Workload of the job."""
    [body] = [body for (kind, _), body in operator.client.objects.items() if kind == "Workload"]
    return body


def set_conditions(operator: KilledOperator, changes: dict[str, tuple[str, str]], **fields: Any) -> None:
    """Set conditions of the Workload by type, to a status and a reason."""
    body = workload(operator)
    status = body.get("status", {})
    conditions = {item["type"]: item for item in status.get("conditions", ())}
    for condition_type, (value, reason) in changes.items():
        conditions[condition_type] = {
            "type": condition_type, "status": value, "reason": reason, "message": "by Kueue",
            "lastTransitionTime": format_timestamp(operator.now),
        }  # fmt: skip
    operator.set_status(body, **status | {"conditions": list(conditions.values())} | fields)


SCENARIOS: dict[str, list[Step]] = {
    "restart after a crash, complete, time to live": [put(), run_all, end(1, Reason.CRASHED), run_all, complete, advance],
    "drain, lost pod": [put(), run_all, drain, run_all, advance, remove, advance, run_all],
    "suspend and resume": [put(), run_all, put(suspend=True), put(), run_all],
    "fail, leftover pods": [put(), run_all, end(1, Reason.INVALID_DATA), advance],
    "complete, leftover pods": [put(), run_all, end(0, Reason.COMPLETE), advance],
    "deadline": [put(activeDeadlineSeconds=60), run_all, advance],
    "kept pods of a node that fails twice": [
        put(), run_all, end(1, Reason.CRASHED), run_all, advance, end(1, Reason.CRASHED), advance, run_all, complete,
    ],
    "kept pods of a job that fails": [
        put(backoffLimit=1), run_all, end(0, Reason.CRASHED), run_all, advance, end(0, Reason.CRASHED), advance,
    ],
    "lost node": [put(), run_all, cut_off, advance, run_all],
    "avoided node, last resort, forgotten": [
        put(preflight={"avoidNodesSeconds": 1500}), run_all, end(1, Reason.PREFLIGHT_FAILED), cannot_be_scheduled, advance,
        run_all, advance, advance,
    ],
    "queue: admit, preempt, admit again, complete": [
        put(QUEUED), admit, run_all, evict("Preempted"), admit, run_all, complete, advance,
    ],
    "queue: suspend, resume, suspend, leave": [
        put(QUEUED), admit, run_all, put(QUEUED, suspend=True), evict("Deactivated"), put(QUEUED), admit, run_all,
        put(QUEUED, suspend=True), evict("Deactivated"), leave_queue, put(), run_all,
    ],
    "queue: delete": [put(QUEUED), admit, run_all, delete, advance],
    "gang: crash, more nodes while suspended, complete": [
        put(GANG), run_all, end(1, Reason.CRASHED), run_all, put(GANG, suspend=True), put(GANG | LARGER, suspend=True),
        put(GANG | LARGER), run_all, complete, advance,
    ],
    "gang: other priority class while suspended": [
        put(GANG), run_all, put(GANG | URGENT, suspend=True), put(GANG | URGENT), run_all,
    ],
    "gang: delete": [put(GANG), run_all, delete, advance],
    "elastic: shrink, grow, complete": [
        put(ELASTIC, **RESIZING), run_all, drain, cannot_be_scheduled, advance, run_all, advance, run_all, run_all, complete,
    ],
    "elastic: shrink after a lost node, delete": [put(ELASTIC, **RESIZING), run_all, cut_off, advance, run_all, delete],
}  # fmt: skip


def everything(operator: KilledOperator) -> str:
    """All objects. UIDs and versions depend on the number of writes; the log shows whether each pod was created once."""
    objects = {}
    for (kind, name), body in operator.client.objects.items():
        metadata = {key: value for key, value in body["metadata"].items() if key not in ("uid", "resourceVersion")}
        objects[f"{kind} {name}"] = body | {"metadata": metadata}
    return re.sub(r"uid-\d+", "uid", json.dumps(objects, indent=1, sort_keys=True))


async def play(
    steps: list[Step], kill_at: float = float("inf"), takes_effect: bool = False
) -> tuple[KilledOperator, list[str]]:
    """Play a scenario. Returns the operator, and all objects after each step."""
    operator, seen = KilledOperator(kill_at, takes_effect), []
    for step in steps:
        step(operator)
        await operator.settle()
        seen.append(everything(operator))
    creations = [line for line in operator.client.log if line.startswith("create Pod")]
    return operator, [*seen, *sorted(creations)]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_outcome_is_the_same_after_a_kill_at_any_write(name: str) -> None:
    calm, expected = await play(SCENARIOS[name])
    assert calm.client.writes > 5
    for write in range(1, calm.client.writes + 1):
        for takes_effect in (False, True):
            operator, seen = await play(SCENARIOS[name], write, takes_effect)
            assert operator.client.writes >= write, "the operator was killed"
            assert seen == expected, f"killed {'after' if takes_effect else 'before'} write {write}"


async def test_methods_that_do_not_count_as_writes_only_read() -> None:
    verbs: list[str] = []
    nobody = ApiClient(Configuration(host="http://127.0.0.1:1"))
    client = KubernetesClient(nobody, on_request=lambda verb, _resource, _status: verbs.append(verb))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j-0", "namespace": "team"}}
    for name in READS:
        method = getattr(client, name)
        arguments: dict[str, Any] = {"key": KEY, "body": pod, "api_version": "v1"}
        with pytest.raises(aiohttp.ClientError):
            await method(*(arguments.get(parameter, "name") for parameter in inspect.signature(method).parameters))
    await client.close()
    assert verbs == ["GET"] * len(READS)
