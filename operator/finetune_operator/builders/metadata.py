"""Metadata that all objects of a job share."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from finetune_operator import names
from finetune_operator.api import API_VERSION, KIND, FineTuneJob

COMMON_LABELS = {
    "app.kubernetes.io/name": "finetune-trainer",
    "app.kubernetes.io/component": "trainer",
    "app.kubernetes.io/managed-by": "finetune-operator",
}
"""The labels of all trainer pods, which their Service selects by."""


def build_metadata(
    job: FineTuneJob,
    name: str,
    extra_labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Build the metadata of an object: name, labels and the owner, with which Kubernetes deletes the object.

    `extra_labels` cannot override the operator's own labels.
    """
    result: dict[str, Any] = {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": (extra_labels or {}) | labels(job),
    }
    if annotations:
        result["annotations"] = annotations
    if job.metadata.uid:  # `finetune render` has documents without a uid
        result["ownerReferences"] = [owner_reference(job)]
    return result


def spec_hash(content: Any) -> str:
    """The value of the annotation that tells whether an object still has the content that the operator decides."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def labels(job: FineTuneJob) -> dict[str, str]:
    """The label the operator selects by, and the labels that Kubernetes recommends."""
    return {names.JOB_LABEL: job.metadata.name, "app.kubernetes.io/instance": job.metadata.name} | COMMON_LABELS


def owner_reference(job: FineTuneJob) -> dict[str, Any]:
    """The reference to the job as the controller of an object."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
