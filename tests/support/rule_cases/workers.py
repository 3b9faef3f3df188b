"""Cases of the trainer pods."""

from __future__ import annotations

from typing import Any

from tests.support.rule_cases.documents import Case, spec

VOLUME = {"name": "data", "emptyDir": {}}


def template(**fields: Any) -> dict[str, Any]:
    """Changes of spec.workers.template."""
    return spec(workers__template=fields)


def mounted(path: str, **fields: Any) -> dict[str, Any]:
    """A template with a volume that is mounted at a path."""
    return template(volumes=[VOLUME], volumeMounts=[{"name": "data", "mountPath": path}], **fields)


def initialized(**fields: Any) -> dict[str, Any]:
    """A template with an init container."""
    return template(volumes=[VOLUME], initContainers=[{"name": "prepare", **fields}])


MOUNT_PATHS = "spec.workers.template.volumeMounts[0].mountPath"
INIT_MOUNT_PATHS = "spec.workers.template.initContainers[0].volumeMounts[0].mountPath"


def _in_init_container(path: str) -> dict[str, Any]:
    return initialized(volumeMounts=[{"name": "data", "mountPath": path}])


CASES: tuple[Case, ...] = (
    Case("spec.workers.nodes", "nodes must not be below minNodes", spec(workers__nodes=2, workers__minNodes=2),
         spec(workers__nodes=1, workers__minNodes=2)),
    Case(
        "spec.workers.minNodes",
        "batchSize must be a multiple of microBatchSize x minNodes",
        spec(training__batchSize=8, training__microBatchSize=1, workers__nodes=8, workers__minNodes=2),
        spec(training__batchSize=8, training__microBatchSize=1, workers__nodes=8, workers__minNodes=3),
    ),
    Case(
        "spec.workers.scratch.size",
        "a PersistentVolume needs a size",
        spec(workers__scratch={"type": "PersistentVolume", "size": "1Gi"}),
        spec(workers__scratch={"type": "PersistentVolume"}),
    ),
    Case(
        "spec.workers.scratch.storageClassName",
        "only a PersistentVolume has a StorageClass",
        spec(workers__scratch={"type": "PersistentVolume", "size": "1Gi", "storageClassName": "fast"}),
        spec(workers__scratch={"size": "1Gi", "storageClassName": "fast"}),
    ),
    Case("spec.workers.template.volumes", "the operator has a volume", template(volumes=[VOLUME]),
         template(volumes=[VOLUME | {"name": "work"}])),
    Case("spec.workers.template.volumes", "the operator has a volume", template(volumes=[VOLUME | {"name": "claim"}]),
         template(volumes=[VOLUME | {"name": "credentials-0"}])),
    Case(
        "spec.workers.template.volumeMounts",
        "a mount names no volume",
        mounted("/data"),
        template(volumes=[VOLUME], volumeMounts=[{"name": "document", "mountPath": "/data"}]),
    ),
    Case(
        "spec.workers.template.initContainers",
        "a mount names no volume",
        initialized(volumeMounts=[{"name": "data", "mountPath": "/data"}]),
        initialized(volumeMounts=[{"name": "credentials-0", "mountPath": "/data"}]),
    ),
    *(
        Case(MOUNT_PATHS, "not an absolute path", mounted("/data/..a"), mounted(path))
        for path in ("data", "/data/../etc/finetune", "/./etc", "/data//a", "/data/..")
    ),
    *(
        Case(MOUNT_PATHS, "the operator or the system mounts", mounted("/work/cache"), mounted(path))
        for path in ("/", "/etc", "/etc/", "/etc/finetune", "/etc/finetune/x", "/etc/finetune-credentials/a", "/dev",
                     "/dev/termination-log", "/dev/shm", "/dev/shm/x", "/mnt/pvc", "/mnt/pvc/a", "/work", "/proc", "/sys/fs")
    ),
    *(
        Case(MOUNT_PATHS, "the operator or the system mounts", mounted(path), mounted("/work/"))
        for path in ("/etc/finetuner", "/etc/ssl", "/mnt", "/mnt/pvcs", "/workspace", "/dev/infiniband", "/procedures")
    ),
    Case(INIT_MOUNT_PATHS, "not an absolute path", _in_init_container("/data"), _in_init_container("data")),
    Case(INIT_MOUNT_PATHS, "the operator or the system mounts", _in_init_container("/data"), _in_init_container("/work")),
    Case(
        "spec.workers.template.initContainers[0].name",
        "the trainer's container has this name",
        initialized(),
        initialized(name="trainer"),
    ),
    Case(
        "spec.workers.template.resourceClaims[0].resourceClaimTemplateName",
        "a claim has one origin",
        template(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "a"}]),
        template(resourceClaims=[{"name": "gpu"}]),
    ),
    Case(
        "spec.workers.template.securityContext.assignIds",
        "the cluster assigns the ids",
        template(securityContext={"assignIds": "Cluster"}),
        template(securityContext={"assignIds": "Cluster", "runAsUser": 1000}),
    ),
    *(
        Case(
            f"spec.workers.template.{field}",
            "keys of finetune-operator.io, kueue.x-k8s.io, pod groups and AppArmor",
            template(**{field: {"example.com/job": "a"}}),
            template(**{field: {key: "a"}}),
        )
        for field in ("labels", "annotations")
        for key in (
            "finetune-operator.io/job", "kueue.x-k8s.io/queue-name", "provreq.kueue.x-k8s.io/maxRunDurationSeconds",
            "scheduling.x-k8s.io/pod-group", "scheduling.k8s.io/group-name", "pod-group.scheduling.sigs.k8s.io/name",
            "container.apparmor.security.beta.kubernetes.io/trainer",
        )
    ),
    Case(
        "spec.workers.template.priorityClassName",
        "system- priority classes",
        template(priorityClassName="high"),
        template(priorityClassName="system-node-critical"),
    ),
)  # fmt: skip
