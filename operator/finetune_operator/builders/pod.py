"""The pod of one node, which meets the Pod Security level "restricted"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.api.pod_template import InitContainer
from finetune_operator.builders.metadata import build_metadata
from finetune_operator.builders.node_affinity import avoid_nodes
from finetune_operator.builders.placement import Placement
from finetune_operator.builders.pod_group import join_pod_group
from finetune_operator.builders.volumes import build_volumes
from finetune_operator.settings import Settings
from finetune_trainer.protocol.environment import COMPLETES_ONCE, REQUESTED_GPUS

USER_ID = 1000


class Peer(NamedTuple):
    """What a pod has in common with those that it will meet: the image, and the document as JSON."""

    image: str
    document: str


def build_pod(
    job: FineTuneJob, index: int, settings: Settings, placement: Placement | None = None, *, is_alternate: bool = False,
    peer: Peer | None = None, nodes: int | None = None, avoided_nodes: Sequence[str] = (),
    last_resort_nodes: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Build the pod of node `index`, with the alternate name if the failed pod with the other name is kept.

    `nodes` is the number of nodes that the run uses, by default all of them. Only the agent of the first pod reads it.
    spec.workers.template adds to the pod; its schema is the list of fields that a user may set. `placement` is the decision of
    the queue that admitted the job, and `peer` is set if other pods of the job run already. The pod must not run on the
    Kubernetes nodes `avoided_nodes`, and on `last_resort_nodes` only if no other node has room.
    """
    peer = peer or Peer(job.spec.workers.image or settings.trainer_image, train_document(job))
    placement, nodes = placement or Placement(), nodes or job.spec.workers.nodes
    template = job.spec.workers.template
    labels = template.labels | placement.labels | {names.NODE_RANK_LABEL: str(index), names.REVISION_LABEL: job.revision}
    annotations = (
        {"prometheus.io/scrape": "true"}
        | template.annotations
        | placement.annotations
        | {
            "prometheus.io/port": str(names.HTTP_PORT),
            "prometheus.io/path": "/metrics",
            names.GENERATION_ANNOTATION: str(job.metadata.generation),
            names.NODES_ANNOTATION: str(nodes),
            names.DOCUMENT_ANNOTATION: peer.document,
        }
    )
    name = names.pod_name(job.metadata.name, index, is_alternate=is_alternate)
    pod_volumes, mounts = build_volumes(job)
    optional = {
        "nodeSelector": template.node_selector | placement.node_selector,
        "imagePullSecrets": [{"name": secret} for secret in template.image_pull_secrets],
        "serviceAccountName": template.service_account_name,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "affinity": avoid_nodes(_affinity(job), avoided_nodes, last_resort_nodes),
        "schedulerName": template.scheduler_name,
        "topologySpreadConstraints": _topology_spread(job),
        "resourceClaims": [claim.document() for claim in template.resource_claims],
        "initContainers": [_init_container(job, container, peer.image) for container in template.init_containers],
        # Without this policy a pod in the node's network would not resolve the names of its peers.
        **({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if template.host_network else {}),
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": build_metadata(job, name, labels, annotations),
        "spec": {
            "restartPolicy": "Never",
            "hostname": names.pod_hostname(job.metadata.name, index),
            "subdomain": names.SERVICE,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": job.spec.run_policy.termination_grace_period_seconds,
            "securityContext": _security_context(job),
            "tolerations": _tolerations(job, placement),
            "containers": [_container(job, index, settings, peer.image, nodes) | {"volumeMounts": mounts}],
            "volumes": pod_volumes,
        }
        | {key: value for key, value in optional.items() if value},
    }
    join_pod_group(job, pod)
    _use_admitted_resources(pod, placement)
    return pod


def train_document(job: FineTuneJob) -> str:
    """The trainer's part of the document as JSON, with the defaults: those of another version of the trainer may differ."""
    return json.dumps(job.spec.train_document(), ensure_ascii=False, separators=(",", ":"))


def all_containers(pod_spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The init containers and the containers of a pod."""
    return [*(pod_spec.get("initContainers") or ()), *pod_spec["containers"]]


def _use_admitted_resources(pod: dict[str, Any], placement: Placement) -> None:
    for container in all_containers(pod["spec"]):
        if admitted := placement.resources.get(container["name"]):
            claims = {key: value for key, value in container.get("resources", {}).items() if key == "claims"}
            container["resources"] = {key: admitted[key] for key in ("requests", "limits") if key in admitted} | claims


def agent_command(job: FineTuneJob, index: int, nodes: int) -> list[str]:
    """Build the command line of the agent, which docs/concepts/worker-group.md describes."""
    name, namespace, workers = job.metadata.name, job.metadata.namespace, job.spec.workers
    arguments: dict[str, object] = {
        "document": f"{names.DOCUMENT_DIR}/{names.DOCUMENT_KEY}",
        "job": f"{namespace}/{name}",
        "run-id": job.metadata.uid or f"{namespace}/{name}",  # `finetune render` has documents without a uid
        "node-rank": index,
        "nodes": max(nodes, index + 1),
        "processes-per-node": workers.processes_per_node,
        "rendezvous": f"{names.pod_hostname(name, 0)}.{names.SERVICE}.{namespace}.svc:{names.RENDEZVOUS_PORT}",
        "work-dir": names.WORK_DIR,
        "http-port": names.HTTP_PORT,
        "credentials-dir": names.CREDENTIALS_DIR,
        "termination-log": names.TERMINATION_LOG,
        "hang-limits": job.spec.run_policy.hang.model_dump_json(by_alias=True),
    }
    if job.spec.run_policy.preflight is not None:
        arguments["preflight"] = job.spec.run_policy.preflight.model_dump_json(by_alias=True, exclude_none=True)
    words = ["python", "-m", "finetune_trainer.agent"]
    for flag, value in arguments.items():
        words += [f"--{flag}", str(value)]
    return words


def _container(job: FineTuneJob, index: int, settings: Settings, image: str, nodes: int) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": names.CONTAINER,
        "image": image,
        "command": agent_command(job, index, nodes),
        "env": _environment(job),
        "ports": [
            {"name": "metrics", "containerPort": names.HTTP_PORT},
            {"name": "rendezvous", "containerPort": names.RENDEZVOUS_PORT},
        ],
        "resources": _resources(job),
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "terminationMessagePath": names.TERMINATION_LOG,
        # If the agent dies before it writes a termination message, the end of its log takes its place.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _container_security_context(job),
    }
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    return container


def _environment(job: FineTuneJob) -> list[dict[str, Any]]:
    """The variables of the template, and defaults for those it does not set."""
    template = [variable.document() for variable in job.spec.workers.template.env]
    template_names = {variable["name"] for variable in template}
    defaults = {
        "HOME": f"{names.WORK_DIR}/home",
        "TMPDIR": f"{names.WORK_DIR}/tmp",
        "HF_HOME": f"{names.WORK_DIR}/hf",
        "PYTHONUNBUFFERED": "1",
        COMPLETES_ONCE: "1",
    }
    if gpus := job.spec.workers.resources.gpus:
        defaults[REQUESTED_GPUS] = str(gpus)  # a rank that cannot use its GPU fails instead of training on the CPU
    return [{"name": name, "value": value} for name, value in defaults.items() if name not in template_names] + template


def _init_container(job: FineTuneJob, container: InitContainer, trainer_image: str) -> dict[str, Any]:
    body = container.document()
    work = {"name": names.WORK_VOLUME, "mountPath": names.WORK_DIR}
    return {key: value for key, value in body.items() if value} | {
        "image": container.image or trainer_image,
        "volumeMounts": [work, *body["volumeMounts"]],
        "securityContext": _container_security_context(job),
    }


def _resources(job: FineTuneJob) -> dict[str, Any]:
    resources: dict[str, Any] = job.spec.workers.resources.document()
    if claims := job.spec.workers.template.resource_claims:
        resources["claims"] = [{"name": claim.name} for claim in claims]
    return resources


def _container_security_context(job: FineTuneJob) -> dict[str, Any]:
    capabilities: dict[str, Any] = {"drop": ["ALL"]}
    if added := job.spec.workers.template.security_context.capabilities:
        capabilities["add"] = added
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": capabilities}


def _security_context(job: FineTuneJob) -> dict[str, Any]:
    template = job.spec.workers.template.security_context
    result: dict[str, Any] = {
        "runAsNonRoot": template.run_as_user != 0,
        "fsGroupChangePolicy": "OnRootMismatch",  # otherwise each start changes the owner of every file
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if template.supplemental_groups:
        result["supplementalGroups"] = template.supplemental_groups
    if template.assign_ids == "Cluster":
        return result
    ids = {"runAsUser": template.run_as_user, "runAsGroup": template.run_as_group, "fsGroup": template.fs_group}
    return result | {name: USER_ID if value is None else value for name, value in ids.items()}


def _topology_spread(job: FineTuneJob) -> list[dict[str, Any]]:
    """The constraints of the template; those without a labelSelector, which would have no effect, select the job's pods."""
    selector = {"labelSelector": {"matchLabels": {names.JOB_LABEL: job.metadata.name}}}
    return [selector | constraint for constraint in job.spec.workers.template.topology_spread_constraints]


def _tolerations(job: FineTuneJob, placement: Placement) -> list[dict[str, Any]]:
    """The tolerations of the template and of the queue, and those for a lost node.

    The operator replaces pods of lost nodes itself (reconcile/node_loss.py): an eviction would also stop a run whose node has
    only lost its kubelet.
    """
    template = job.spec.workers.template.tolerations
    tolerations = template + [toleration for toleration in placement.tolerations if toleration not in template]
    template_keys = {toleration.get("key") for toleration in tolerations}
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if key not in template_keys:
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute"})
    return tolerations


def _affinity(job: FineTuneJob) -> dict[str, Any]:
    """Prefer one pod per node, unless the template has its own podAntiAffinity."""
    if job.spec.workers.nodes == 1:
        return job.spec.workers.template.affinity
    term = {
        "labelSelector": {"matchLabels": {names.JOB_LABEL: job.metadata.name}},
        "topologyKey": "kubernetes.io/hostname",
    }
    spread = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    return {"podAntiAffinity": spread} | job.spec.workers.template.affinity
