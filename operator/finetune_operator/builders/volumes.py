"""What a trainer pod mounts. Its root file system is read-only, so that all it writes is in here."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.uri_references import claims, secrets

Volumes = list[tuple[dict[str, Any], dict[str, Any]]]


def volumes(job: FineTuneJob) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(volumes, volumeMounts) of a pod; numbered, because names of Secrets are no names of volumes."""
    pairs = _scratch(job) + _credentials(job) + _claims(job)
    template = job.spec.workers.template
    return (
        [volume for volume, _ in pairs] + template.volumes,
        [mount for _, mount in pairs] + template.volume_mounts,
    )


def _scratch(job: FineTuneJob) -> Volumes:
    document = {"name": "document", "configMap": {"name": job.metadata.name}}
    return [
        ({"name": "work", "emptyDir": {}}, {"name": "work", "mountPath": names.WORK_DIR}),
        # Containers get 64 MiB of shared memory otherwise, too little for data workers and collectives.
        ({"name": "shm", "emptyDir": {"medium": "Memory"}}, {"name": "shm", "mountPath": "/dev/shm"}),
        (document, {"name": "document", "mountPath": names.DOCUMENT_DIR, "readOnly": True}),
    ]


def _credentials(job: FineTuneJob) -> Volumes:
    return [
        (
            {"name": f"credentials-{number}", "secret": {"secretName": secret, "defaultMode": 0o440}},
            {"name": f"credentials-{number}", "mountPath": f"{names.CREDENTIALS_DIR}/{secret}", "readOnly": True},
        )
        for number, secret in enumerate(secrets(job.spec))
    ]


def _claims(job: FineTuneJob) -> Volumes:
    return [
        (
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}},
            {"name": f"claim-{number}", "mountPath": f"{names.CLAIMS_DIR}/{claim}", "readOnly": not writes},
        )
        for number, (claim, writes) in enumerate(claims(job.spec).items())
    ]
