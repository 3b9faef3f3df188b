"""The pod of one node, fit for the Pod Security level "restricted"."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.metadata import metadata
from finetune_operator.builders.volumes import volumes
from finetune_operator.settings import Settings

USER = 1000


def pod(job: FineTuneJob, index: int, settings: Settings) -> dict[str, Any]:
    """Node `index` of the job. `template` adds to what is said here; what it may change is an allow-list by its schema."""
    template = job.spec.workers.template
    labels = template.labels | {names.NODE_RANK_LABEL: str(index)}
    scrape = {"scrape": "true", "port": str(names.HTTP_PORT), "path": "/metrics"}
    annotations = {f"prometheus.io/{key}": value for key, value in scrape.items()} | template.annotations
    name = names.pod_name(job.metadata.name, index)
    mounted, mounts = volumes(job)
    optional = {
        "nodeSelector": template.node_selector,
        "imagePullSecrets": [{"name": secret} for secret in template.image_pull_secrets],
        "serviceAccountName": template.service_account_name,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "affinity": _affinity(job),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(job, name, labels=labels, annotations=annotations),
        "spec": {
            "restartPolicy": "Never",
            "hostname": name,
            "subdomain": job.metadata.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": job.spec.run_policy.termination_grace_period_seconds,
            "securityContext": _pod_security(),
            "tolerations": _tolerations(job, settings),
            "containers": [_container(job, index, settings) | {"volumeMounts": mounts}],
            "volumes": mounted,
        }
        | {key: value for key, value in optional.items() if value},
    }


def command(job: FineTuneJob, index: int) -> list[str]:
    """The agent's command line, as docs/concepts/worker-group.md has it."""
    name, namespace, workers = job.metadata.name, job.metadata.namespace, job.spec.workers
    arguments = {
        "document": f"{names.DOCUMENT_DIR}/{names.DOCUMENT_KEY}",
        "job": f"{namespace}/{name}",
        "node-rank": index,
        "nodes": workers.nodes,
        "processes-per-node": workers.processes_per_node,
        "rendezvous": f"{names.pod_name(name, 0)}.{name}.{namespace}.svc:{names.RENDEZVOUS_PORT}",
        "work-dir": names.WORK_DIR,
        "http-port": names.HTTP_PORT,
        "credentials-dir": names.CREDENTIALS_DIR,
        "termination-log": names.TERMINATION_LOG,
    }
    words = [word for flag, value in arguments.items() for word in (f"--{flag}", str(value))]
    return ["python", "-m", "finetune_trainer.agent", *words]


def _container(job: FineTuneJob, index: int, settings: Settings) -> dict[str, Any]:
    workers = job.spec.workers
    policy = {"imagePullPolicy": settings.image_pull_policy} if settings.image_pull_policy else {}
    return policy | {
        "name": names.CONTAINER,
        "image": workers.image or settings.trainer_image,
        "command": command(job, index),
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
        # An agent that could not say its last word leaves the end of its log instead.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _environment(job: FineTuneJob) -> list[dict[str, Any]]:
    own = job.spec.workers.template.env
    theirs = {variable.get("name") for variable in own}
    ours = {
        "HOME": f"{names.WORK_DIR}/home",
        "TMPDIR": f"{names.WORK_DIR}/tmp",
        "HF_HOME": f"{names.WORK_DIR}/hf",
        "PYTHONUNBUFFERED": "1",
    }
    return [{"name": name, "value": value} for name, value in ours.items() if name not in theirs] + own


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",  # else every start walks through a whole volume
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _tolerations(job: FineTuneJob, settings: Settings) -> list[dict[str, Any]]:
    """A whole gang waits for a pod on a lost node, so that it is given up earlier than by default."""
    own = job.spec.workers.template.tolerations
    lost = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": settings.node_lost_seconds}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if all(toleration.get("key") != key for toleration in own)
    ]
    return own + lost


def _affinity(job: FineTuneJob) -> dict[str, Any]:
    """Prefer a node of its own for each pod, unless the template says something about pods itself."""
    if job.spec.workers.nodes == 1:
        return job.spec.workers.template.affinity
    term = {
        "labelSelector": {"matchLabels": {names.JOB_LABEL: job.metadata.name}},
        "topologyKey": "kubernetes.io/hostname",
    }
    spread = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    return {"podAntiAffinity": spread} | job.spec.workers.template.affinity
