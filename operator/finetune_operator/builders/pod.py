"""The pod of one node, which meets the Pod Security level "restricted"."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.metadata import build_metadata
from finetune_operator.builders.placement import Placement
from finetune_operator.builders.pod_group import join_pod_group
from finetune_operator.builders.volumes import build_volumes
from finetune_operator.settings import Settings
from finetune_trainer.protocol.environment import REQUESTED_GPUS

USER_ID = 1000


def build_pod(
    job: FineTuneJob, index: int, settings: Settings, placement: Placement | None = None, *, is_alternate: bool = False
) -> dict[str, Any]:
    """Build the pod of node `index`, with the alternate name if the failed pod with the other name is kept.

    spec.workers.template adds to the pod; its schema is the list of fields that a user may set. `placement` is the decision of
    the queue that admitted the job.
    """
    placement = placement or Placement()
    template = job.spec.workers.template
    labels = template.labels | placement.labels | {names.NODE_RANK_LABEL: str(index)}
    annotations = (
        {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(names.HTTP_PORT),
            "prometheus.io/path": "/metrics",
        }
        | template.annotations
        | placement.annotations
    )
    name = names.pod_name(job.metadata.name, index, is_alternate=is_alternate)
    pod_volumes, mounts = build_volumes(job)
    optional = {
        "nodeSelector": template.node_selector | placement.node_selector,
        "imagePullSecrets": [{"name": secret} for secret in template.image_pull_secrets],
        "serviceAccountName": template.service_account_name,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "affinity": _affinity(job),
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": build_metadata(job, name, labels, annotations),
        "spec": {
            "restartPolicy": "Never",
            "hostname": names.pod_hostname(job.metadata.name, index),
            "subdomain": job.metadata.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": job.spec.run_policy.termination_grace_period_seconds,
            "securityContext": _security_context(),
            "tolerations": _tolerations(job, placement),
            "containers": [_container(job, index, settings) | {"volumeMounts": mounts}],
            "volumes": pod_volumes,
        }
        | {key: value for key, value in optional.items() if value},
    }
    join_pod_group(job, pod)
    return pod


def agent_command(job: FineTuneJob, index: int) -> list[str]:
    """Build the command line of the agent, which docs/concepts/worker-group.md describes."""
    name, namespace, workers = job.metadata.name, job.metadata.namespace, job.spec.workers
    arguments = {
        "document": f"{names.DOCUMENT_DIR}/{names.DOCUMENT_KEY}",
        "job": f"{namespace}/{name}",
        "run-id": job.metadata.uid or f"{namespace}/{name}",  # `finetune render` has documents without a uid
        "node-rank": index,
        "nodes": workers.nodes,
        "processes-per-node": workers.processes_per_node,
        "rendezvous": f"{names.pod_hostname(name, 0)}.{name}.{namespace}.svc:{names.RENDEZVOUS_PORT}",
        "work-dir": names.WORK_DIR,
        "http-port": names.HTTP_PORT,
        "credentials-dir": names.CREDENTIALS_DIR,
        "termination-log": names.TERMINATION_LOG,
        "hang-limits": job.spec.run_policy.hang.model_dump_json(by_alias=True),
    }
    words = ["python", "-m", "finetune_trainer.agent"]
    for flag, value in arguments.items():
        words += [f"--{flag}", str(value)]
    return words


def _container(job: FineTuneJob, index: int, settings: Settings) -> dict[str, Any]:
    workers = job.spec.workers
    container: dict[str, Any] = {
        "name": names.CONTAINER,
        "image": workers.image or settings.trainer_image,
        "command": agent_command(job, index),
        "env": _environment(job),
        "ports": [
            {"name": "metrics", "containerPort": names.HTTP_PORT},
            {"name": "rendezvous", "containerPort": names.RENDEZVOUS_PORT},
        ],
        "resources": workers.resources.document(),
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "terminationMessagePath": names.TERMINATION_LOG,
        # If the agent dies before it writes a termination message, the end of its log takes its place.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if settings.image_pull_policy:
        container["imagePullPolicy"] = settings.image_pull_policy
    return container


def _environment(job: FineTuneJob) -> list[dict[str, Any]]:
    """The variables of the template, and defaults for those it does not set."""
    template = job.spec.workers.template.env
    template_names = {variable.get("name") for variable in template}
    defaults = {
        "HOME": f"{names.WORK_DIR}/home",
        "TMPDIR": f"{names.WORK_DIR}/tmp",
        "HF_HOME": f"{names.WORK_DIR}/hf",
        "PYTHONUNBUFFERED": "1",
    }
    if gpus := job.spec.workers.resources.gpus:
        defaults[REQUESTED_GPUS] = str(gpus)  # a rank that cannot use its GPU fails instead of training on the CPU
    return [{"name": name, "value": value} for name, value in defaults.items() if name not in template_names] + template


def _security_context() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",  # otherwise each start changes the owner of every file
        "seccompProfile": {"type": "RuntimeDefault"},
    }


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
