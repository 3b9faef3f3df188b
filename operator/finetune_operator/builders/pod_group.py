"""scheduling.gang: the PodGroup of a job, and the fields with which its pods join it.

The three gang schedulers share the idea of a PodGroup with a minimum number of pods, and nothing else: each has its own API
group and its own way for a pod to name its group.
"""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.api.scheduling import Gang
from finetune_operator.builders.metadata import build_metadata, spec_hash

API_VERSIONS: dict[Gang, str] = {
    "Native": "scheduling.k8s.io/v1beta1",
    "Coscheduling": "scheduling.x-k8s.io/v1alpha1",
    "Volcano": "scheduling.volcano.sh/v1beta1",
}
SCHEDULER_NAMES: dict[Gang, str] = {"Coscheduling": "scheduler-plugins-scheduler", "Volcano": "volcano"}
COSCHEDULING_LABEL = "scheduling.x-k8s.io/pod-group"
VOLCANO_ANNOTATION = "scheduling.k8s.io/group-name"


def build_pod_group(job: FineTuneJob) -> dict[str, Any] | None:
    """Build the PodGroup; None for a job without gang scheduling. It has the name of the job.

    An elastic job starts when the smallest number of its pods can be bound.

    Kubernetes allows only the number of pods to change. An annotation has the hash of the other fields, with which the operator
    finds out whether it has to create the PodGroup anew.
    """
    gang, nodes = job.spec.scheduling.gang, job.spec.workers.min_nodes or job.spec.workers.nodes
    if gang is None:
        return None
    priority_class = job.spec.workers.template.priority_class_name
    priority = {"priorityClassName": priority_class} if priority_class else {}
    minimum: dict[str, Any] = {"minMember": nodes}
    fixed: dict[str, Any] = {}
    if gang == "Native":
        minimum = {"schedulingPolicy": {"gang": {"minCount": nodes}}}
        # The job stops when it loses one pod, so the scheduler may as well preempt all of them.
        fixed = {"disruptionMode": {"all": {}}} | priority
    elif gang == "Volcano":
        queue = job.spec.scheduling.volcano_queue
        fixed = priority | ({"queue": queue} if queue else {})
    return {
        "apiVersion": API_VERSIONS[gang],
        "kind": "PodGroup",
        "metadata": build_metadata(job, job.metadata.name, annotations={names.SPEC_HASH_ANNOTATION: spec_hash(fixed)}),
        "spec": minimum | fixed,
    }


def join_pod_group(job: FineTuneJob, pod: dict[str, Any]) -> None:
    """Make a pod a member of the job's PodGroup, if there is one. A schedulerName of the template has precedence."""
    gang, group = job.spec.scheduling.gang, job.metadata.name
    if gang is None:
        return
    if gang == "Native":
        pod["spec"]["schedulingGroup"] = {"podGroupName": group}
    elif gang == "Coscheduling":
        pod["metadata"]["labels"][COSCHEDULING_LABEL] = group
    else:
        pod["metadata"].setdefault("annotations", {})[VOLCANO_ANNOTATION] = group
    if gang in SCHEDULER_NAMES:
        pod["spec"].setdefault("schedulerName", SCHEDULER_NAMES[gang])
