"""The fields of a trainer pod that a document may set; every other field of the pod is decided by the operator.

Fields have the names of Kubernetes' Pod API. The models list what may be set, so that a field that is absent here, such as a
privileged security context, cannot be expressed. Which values a namespace may use is decided by the administrator's profiles.

Fields for which a profile may have a default are absent by default: the API server writes default values into the stored
object, where they would look like values that the author wrote.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetune_operator.api.resources import Quantity, Resources
from finetune_trainer.config.base import FreeForm, Rule, Section

KubernetesObjects = Annotated[
    list[dict[str, Any]],
    Field(
        max_length=64,
        json_schema_extra={"items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    ),
]
StringMap = Annotated[dict[str, str], Field(max_length=64)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
LocalName = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Words = Annotated[list[Annotated[str, Field(max_length=32_768)]], Field(max_length=256)]

IDS = ("run_as_user", "run_as_group", "fs_group")  # of SecurityContext
VOLUME_FIELDS = 2  # the name and the type
RESERVED_PATHS = (
    "^/(etc(/finetune(-credentials)?(/.*)?)?|dev(/(shm|termination-log)(/.*)?)?|mnt/pvc(/.*)?|work|(proc|sys)(/.*)?)?/?$"
)
RESERVED_VOLUMES = "^(work|shm|document|(credentials|claim)-[0-9]+)$"
# Besides the keys of this operator and of Kueue, those that put a pod into another job's gang, and that lift AppArmor.
RESERVED_PREFIXES = (
    "finetune-operator.io/", "kueue.x-k8s.io/", "provreq.kueue.x-k8s.io/", "scheduling.x-k8s.io/", "scheduling.k8s.io/",
    "pod-group.scheduling.sigs.k8s.io", "container.apparmor.security.beta.kubernetes.io/",
)  # fmt: skip


class KeySelector(Section):
    """A key of a ConfigMap or Secret."""

    name: ObjectName
    key: ObjectName
    optional: bool | None = None


class FieldSelector(Section):
    """A field of the pod."""

    field_path: ObjectName
    api_version: str | None = Field(None, max_length=63)


class ResourceFieldSelector(Section):
    """A resource request or limit of a container."""

    resource: ObjectName
    container_name: LocalName | None = None
    divisor: Quantity | None = None


class EnvVarSource(Section):
    """Where the value of an environment variable comes from."""

    config_map_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(Section):
    """An environment variable of a container."""

    name: str = Field(min_length=1, max_length=253)
    value: str | None = Field(None, max_length=32_768)
    value_from: EnvVarSource | None = None


class Volume(Section):
    """A volume of the pod, as in a PodSpec: its name and one type; profiles decide which types a namespace may use."""

    model_config = Section.model_config | {
        "json_schema_extra": {"minProperties": VOLUME_FIELDS, "maxProperties": VOLUME_FIELDS},
    }

    name: LocalName
    config_map: FreeForm | None = None
    csi: FreeForm | None = None
    downward_api: FreeForm | None = Field(None, alias="downwardAPI")
    empty_dir: FreeForm | None = None
    ephemeral: FreeForm | None = None
    host_path: FreeForm | None = None
    image: FreeForm | None = None
    nfs: FreeForm | None = None
    persistent_volume_claim: FreeForm | None = None
    projected: FreeForm | None = None
    secret: FreeForm | None = None

    @model_validator(mode="after")
    def _has_one_type(self) -> Self:
        # CEL cannot read free-form fields; the API server counts the fields instead.
        if len(self.document()) != VOLUME_FIELDS:
            raise ValueError(
                "a volume has exactly one type: set one of emptyDir, persistentVolumeClaim, configMap and the others"
            )
        return self

    @property
    def type(self) -> str:
        """The name of the field that is set, as in YAML."""
        return next(name for name in self.document() if name != "name")


class VolumeMount(Section):
    """Where a volume of workers.template.volumes is mounted."""

    name: LocalName
    mount_path: str = Field(min_length=1, max_length=1024)
    sub_path: str | None = Field(None, max_length=1024)
    read_only: bool | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.mountPath.startsWith('/') && !self.mountPath.matches('//|/[.][.]?(/|$)')",
            "not an absolute path without . and ..: write it in full",
            "mountPath",
        ),
        Rule(
            f"!self.mountPath.matches('{RESERVED_PATHS}')",
            "the operator or the system mounts this directory: choose another one, such as a directory below /mnt or /work",
            "mountPath",
        ),
    )


class InitContainer(Section):
    """A container that runs before the trainer, with its user, its security settings and its directory /work."""

    name: LocalName
    image: str | None = Field(None, max_length=512, description="Defaults to the trainer's image.")
    command: Words = Field(default_factory=list)
    args: Words = Field(default_factory=list)
    env: list[EnvVar] = Field(default_factory=list, max_length=64)
    resources: Resources = Resources()
    restart_policy: Literal["Always"] | None = Field(
        None, description="Always makes it a native sidecar, which runs beside the trainer until the trainer ends."
    )
    volume_mounts: list[VolumeMount] = Field(default_factory=list, max_length=32)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.name != 'trainer'", "the trainer's container has this name: choose another one", "name"),
    )


class ResourceClaim(Section):
    """A claim of dynamic resource allocation (DRA), which the trainer's container gets."""

    name: LocalName
    resource_claim_name: ObjectName | None = None
    resource_claim_template_name: ObjectName | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
            "a claim has one origin: set either resourceClaimName or resourceClaimTemplateName",
            "resourceClaimTemplateName",
        ),
    )


class SecurityContext(Section):
    """The user of the pod. Its root file system is read-only, and it cannot gain privileges."""

    assign_ids: Literal["Operator", "Cluster"] | None = Field(
        None,
        description="Operator, the default, sets the ids below; Cluster leaves them out, for clusters that assign them, such "
        "as by OpenShift's SecurityContextConstraints.",
    )
    run_as_user: int | None = Field(
        None, ge=0, le=2**31 - 1, description="User id; 1000 by default. Root, 0, only where a profile allows it."
    )
    run_as_group: int | None = Field(None, ge=0, le=2**31 - 1, description="Group id; 1000 by default.")
    fs_group: int | None = Field(None, ge=0, le=2**31 - 1, description="Group of mounted volumes; 1000 by default.")
    supplemental_groups: list[int] = Field(default_factory=list, max_length=16)
    capabilities: list[Annotated[str, Field(max_length=32, pattern="^[A-Z_]+$")]] = Field(
        default_factory=list,
        max_length=16,
        description="Linux capabilities that a profile allows, such as IPC_LOCK; all others are dropped. Kubernetes gives "
        "them to root only.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.assignIds) || self.assignIds == 'Operator' || "
            "!has(self.runAsUser) && !has(self.runAsGroup) && !has(self.fsGroup)",
            "the cluster assigns the ids: remove runAsUser, runAsGroup and fsGroup, or set assignIds: Operator",
            "assignIds",
        ),
    )

    @property
    def has_ids(self) -> bool:
        """Whether an id is set, which only the operator can assign."""
        return any(getattr(self, field) is not None for field in IDS)

    def without_ids(self) -> Self:
        """The security context for a cluster that assigns the ids."""
        return self.model_copy(update=dict.fromkeys(IDS))


def _reserved_keys(field: str) -> Rule:
    is_free = " && ".join(f"!key.startsWith('{prefix}')" for prefix in RESERVED_PREFIXES)
    return Rule(
        f"self.{field}.all(key, {is_free})",
        "keys of finetune-operator.io, kueue.x-k8s.io, pod groups and AppArmor are set by controllers only: remove them, and "
        "use the fields of scheduling instead",
        field,
    )


class PodTemplate(Section):
    """The fields of a trainer pod that the user may set. The operator decides all others."""

    labels: StringMap = Field(default_factory=dict, description="Added to the pods; the operator's own labels win.")
    annotations: StringMap = Field(default_factory=dict, description="Added to the pods; the operator's own annotations win.")
    scheduler_name: str | None = Field(None, max_length=253, description="Scheduler of the pods.")
    node_selector: StringMap = Field(default_factory=dict, description="Labels a node must have.")
    tolerations: KubernetesObjects = Field(
        default_factory=list, description="Added to the operator's tolerations for unreachable nodes."
    )
    affinity: FreeForm = Field(
        default_factory=dict, description="Added to the operator's podAntiAffinity, which prefers one pod per node."
    )
    topology_spread_constraints: KubernetesObjects = Field(
        default_factory=list, description="As in a PodSpec; without a labelSelector they select the pods of the job."
    )
    resource_claims: list[ResourceClaim] = Field(
        default_factory=list, max_length=16, description="Claims of dynamic resource allocation (DRA) for the trainer."
    )
    env: list[EnvVar] = Field(
        default_factory=list, max_length=64, description="Environment variables of the trainer container."
    )
    init_containers: list[InitContainer] = Field(
        default_factory=list, max_length=8, description="Containers that run before the trainer, and native sidecars."
    )
    volumes: list[Volume] = Field(default_factory=list, max_length=32, description="Additional volumes.")
    volume_mounts: list[VolumeMount] = Field(
        default_factory=list, max_length=32, description="Where the trainer container mounts the additional volumes."
    )
    security_context: SecurityContext = SecurityContext()
    host_network: bool | None = Field(
        None,
        description="Use the node's network, where a profile allows it; false by default. The pods then occupy the ports 9400 "
        "and 29400 of their nodes, so that a node runs one pod of any job.",
    )
    image_pull_secrets: list[str] = Field(
        default_factory=list, max_length=16, description="Names of the Secrets for pulling the image."
    )
    service_account_name: str | None = Field(
        None, max_length=253, description="ServiceAccount of the pods; its token is never mounted."
    )
    priority_class_name: str | None = Field(None, max_length=253, description="PriorityClass of the pods.")
    runtime_class_name: str | None = Field(None, max_length=253, description="RuntimeClass of the pods.")

    rules: ClassVar[tuple[Rule, ...]] = (
        _reserved_keys("labels"),
        _reserved_keys("annotations"),
        Rule(
            f"self.volumes.all(volume, !volume.name.matches('{RESERVED_VOLUMES}'))",
            "the operator has a volume of this name: choose another one",
            "volumes",
        ),
        Rule(
            "self.volumeMounts.all(mount, self.volumes.exists(volume, volume.name == mount.name))",
            "a mount names no volume of workers.template.volumes: add the volume or correct the name",
            "volumeMounts",
        ),
        Rule(
            "self.initContainers.all(container, container.volumeMounts.all(mount, "
            "self.volumes.exists(volume, volume.name == mount.name)))",
            "a mount names no volume of workers.template.volumes: add the volume or correct the name",
            "initContainers",
        ),
        Rule(
            "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
            "system- priority classes are for parts of the cluster: choose another one",
            "priorityClassName",
        ),
    )
