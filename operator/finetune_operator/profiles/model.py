"""A profile as in the administrator's file."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self, get_args

from pydantic import Field

from finetune_operator.api.pod_template import PodTemplate
from finetune_operator.api.resources import Resources
from finetune_operator.api.workers import ScratchVolume
from finetune_trainer.config.base import Section

Patterns = Annotated[list[Annotated[str, Field(min_length=1)]], Field()]
VolumeType = Literal[
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "hostPath", "image", "nfs", "persistentVolumeClaim",
    "serviceAccountToken", "clusterTrustBundle", "podCertificate",
]  # fmt: skip


def matches(patterns: list[str], name: str) -> bool:
    """Whether one of the patterns, in which * stands for any characters, matches a whole name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Defaults(Section):
    """Values for fields of spec.workers that a job does not set; maps and lists are merged, and the job's entries win."""

    image: str | None = Field(None, max_length=512)
    resources: Resources = Resources()
    resources_per_gpu: dict[str, Resources] = Field(
        default_factory=dict,
        description="By resource name of a GPU, requests and limits that a pod gets for each one it requests.",
    )
    scratch: ScratchVolume = ScratchVolume()
    shared_memory: int | str | None = None
    template: PodTemplate = PodTemplate()


class Limits(Section):
    """What the documents of a namespace may use. The defaults of a profile may go beyond its limits."""

    max_nodes: int | None = Field(None, ge=1)
    images: Patterns = Field(default_factory=lambda: ["*"])
    volume_types: list[VolumeType] = Field(
        ["configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"],
        description="Types of volumes of the template, also as sources of a projected volume, of pvc:// URIs and of scratch. "
        "Volumes with a Secret are decided by secrets.",
    )
    secrets: Patterns = Field(
        default_factory=list, description="Secrets that volumes and environment variables of the template may read."
    )
    credential_secrets: Patterns = Field(
        default_factory=lambda: ["*"], description="Secrets that the credentials fields of URIs may name."
    )
    image_pull_secrets: Patterns = Field(
        default_factory=lambda: ["*"], description="Secrets for pulling images; containers cannot read them."
    )
    labels: Patterns = Field(default_factory=lambda: ["*"], description="Keys of labels in the template.")
    annotations: Patterns = Field(default_factory=lambda: ["*"], description="Keys of annotations in the template.")
    service_accounts: Patterns = Field(default_factory=lambda: ["default"])
    priority_classes: Patterns = Field(default_factory=lambda: ["*"])
    workload_priority_classes: Patterns = Field(default_factory=lambda: ["*"])
    runtime_classes: Patterns = Field(default_factory=lambda: ["*"])
    capabilities: list[str] = Field(default_factory=list, description="Linux capabilities, such as IPC_LOCK.")
    host_network: bool = False
    run_as_root: bool = Field(False, description="Whether runAsUser may be 0.")


UNLIMITED = Limits(
    images=["*"], volume_types=list(get_args(VolumeType)), secrets=["*"], credential_secrets=["*"], image_pull_secrets=["*"],
    labels=["*"], annotations=["*"], service_accounts=["*"], priority_classes=["*"], workload_priority_classes=["*"],
    runtime_classes=["*"], capabilities=["*"], host_network=True, run_as_root=True,
)  # fmt: skip


class Profile(Section):
    """Defaults and limits for the jobs of some namespaces."""

    name: str = Field(min_length=1, max_length=63)
    namespaces: Patterns = Field(
        default_factory=list,
        description="Namespaces whose jobs get this profile unless they choose another one. Without any, jobs of all "
        "namespaces may choose it, and stay within the limits of the profile that they get without a choice.",
    )
    defaults: Defaults = Defaults()
    limits: Limits = Limits()

    def is_offered_in(self, namespace: str) -> bool:
        """Whether jobs of a namespace may choose the profile."""
        return not self.namespaces or self.is_made_for(namespace)

    def is_made_for(self, namespace: str) -> bool:
        """Whether the profile names the namespace, so that its limits replace all others there."""
        return matches(self.namespaces, namespace)

    def with_explicit_limits(self) -> Self:
        """The profile without the built-in values of the limits that the file does not set."""
        explicit = {field: getattr(self.limits, field) for field in self.limits.model_fields_set}
        return self.model_copy(update={"limits": UNLIMITED.model_copy(update=explicit)})
