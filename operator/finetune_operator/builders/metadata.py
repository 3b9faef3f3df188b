"""What all objects of a job have in common."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import API_VERSION, KIND, FineTuneJob


def metadata(job: FineTuneJob, name: str, **more: dict[str, str]) -> dict[str, Any]:
    """Name, labels and the owner, with which the object goes when the job goes.

    `more` are further `labels` and `annotations`; the labels the operator goes by cannot be overridden.
    """
    result: dict[str, Any] = {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": more.get("labels", {}) | labels(job),
    }
    if annotations := more.get("annotations"):
        result["annotations"] = annotations
    if job.metadata.uid:  # a document that was only rendered has none
        result["ownerReferences"] = [owner(job)]
    return result


def labels(job: FineTuneJob) -> dict[str, str]:
    """The project's own label and the recommended ones of Kubernetes."""
    return {
        names.JOB_LABEL: job.metadata.name,
        "app.kubernetes.io/name": "finetune-trainer",
        "app.kubernetes.io/instance": job.metadata.name,
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/managed-by": "finetune-operator",
    }


def owner(job: FineTuneJob) -> dict[str, Any]:
    """The job as controller of an object."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
