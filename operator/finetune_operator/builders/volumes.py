"""The volumes of a trainer pod. Its root file system is read-only, so the trainer writes to these volumes only."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.api.workers import ScratchVolume
from finetune_operator.builders.uri_references import referenced_claims, referenced_secrets
from finetune_trainer.config.storage_schemes import credential_keys

VolumesWithMounts = list[tuple[dict[str, Any], dict[str, Any]]]


def build_volumes(job: FineTuneJob) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Build the volumes and volumeMounts of a pod.

    Volumes are numbered, because the name of a Secret may be too long or contain characters that a volume's name may not.
    """
    pairs = _scratch(job) + _credentials(job) + _claims(job)
    template = job.spec.workers.template
    pod_volumes = [volume for volume, _ in pairs] + [volume.document() for volume in template.volumes]
    mounts = [mount for _, mount in pairs] + [mount.document() for mount in template.volume_mounts]
    return pod_volumes, mounts


def _scratch(job: FineTuneJob) -> VolumesWithMounts:
    annotation = {"fieldPath": f"metadata.annotations['{names.DOCUMENT_ANNOTATION}']"}
    document = {"name": "document", "downwardAPI": {"items": [{"path": names.DOCUMENT_KEY, "fieldRef": annotation}]}}
    # The default of 64 MiB of shared memory is too small for data workers and collectives.
    shared_memory = {"name": names.SHARED_MEMORY_VOLUME} | _empty_dir("Memory", job.spec.workers.shared_memory)
    work = {"name": names.WORK_VOLUME} | _work(job.spec.workers.scratch)
    return [
        (work, {"name": names.WORK_VOLUME, "mountPath": names.WORK_DIR}),
        (shared_memory, {"name": names.SHARED_MEMORY_VOLUME, "mountPath": "/dev/shm"}),
        (document, {"name": "document", "mountPath": names.DOCUMENT_DIR, "readOnly": True}),
    ]


def _work(scratch: ScratchVolume) -> dict[str, Any]:
    if scratch.type != "PersistentVolume":
        return _empty_dir("Memory" if scratch.type == "Memory" else None, scratch.size)
    claim: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": scratch.size}}}
    if scratch.storage_class_name is not None:
        claim["storageClassName"] = scratch.storage_class_name
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _empty_dir(medium: str | None, size: int | str | None) -> dict[str, Any]:
    fields = {"medium": medium, "sizeLimit": size}
    return {"emptyDir": {name: value for name, value in fields.items() if value is not None}}


def _credentials(job: FineTuneJob) -> VolumesWithMounts:
    # Only the keys that storages read, so that a document cannot bring any other Secret, such as a token, into a pod.
    keys: dict[str, Any] = {"items": [{"key": key, "path": key} for key in credential_keys()], "optional": True}
    return [
        (
            {"name": f"credentials-{number}", "secret": {"secretName": secret, "defaultMode": 0o440} | keys},
            {"name": f"credentials-{number}", "mountPath": f"{names.CREDENTIALS_DIR}/{secret}", "readOnly": True},
        )
        for number, secret in enumerate(referenced_secrets(job))
    ]


def _claims(job: FineTuneJob) -> VolumesWithMounts:
    return [
        (
            {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}},
            {"name": f"claim-{number}", "mountPath": f"{names.CLAIMS_DIR}/{claim}", "readOnly": not is_written},
        )
        for number, (claim, is_written) in enumerate(referenced_claims(job).items())
    ]
