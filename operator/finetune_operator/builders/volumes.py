"""The volumes of a trainer pod. Its root file system is read-only, so the trainer writes to these volumes only."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.uri_references import referenced_claims, referenced_secrets

VolumesWithMounts = list[tuple[dict[str, Any], dict[str, Any]]]


def build_volumes(job: FineTuneJob) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Build the volumes and volumeMounts of a pod.

    Volumes are numbered, because the name of a Secret may be too long or contain characters that a volume's name may not.
    """
    pairs = _scratch(job) + _credentials(job) + _claims(job)
    template = job.spec.workers.template
    pod_volumes = [volume for volume, _ in pairs] + template.volumes
    mounts = [mount for _, mount in pairs] + template.volume_mounts
    return pod_volumes, mounts


def _scratch(job: FineTuneJob) -> VolumesWithMounts:
    document = {"name": "document", "configMap": {"name": job.metadata.name}}
    return [
        ({"name": "work", "emptyDir": {}}, {"name": "work", "mountPath": names.WORK_DIR}),
        # The default of 64 MiB of shared memory is too small for data workers and collectives.
        ({"name": "shm", "emptyDir": {"medium": "Memory"}}, {"name": "shm", "mountPath": "/dev/shm"}),
        (document, {"name": "document", "mountPath": names.DOCUMENT_DIR, "readOnly": True}),
    ]


def _credentials(job: FineTuneJob) -> VolumesWithMounts:
    return [
        (
            {"name": f"credentials-{number}", "secret": {"secretName": secret, "defaultMode": 0o440}},
            {"name": f"credentials-{number}", "mountPath": f"{names.CREDENTIALS_DIR}/{secret}", "readOnly": True},
        )
        for number, secret in enumerate(referenced_secrets(job.spec))
    ]


def _claims(job: FineTuneJob) -> VolumesWithMounts:
    return [
        (
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}},
            {"name": f"claim-{number}", "mountPath": f"{names.CLAIMS_DIR}/{claim}", "readOnly": not is_written},
        )
        for number, (claim, is_written) in enumerate(referenced_claims(job.spec).items())
    ]
