"""The trainer pods: how many there are, and what the user may change in them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from finetune_trainer.config.base import FreeForm, Section

Quantity = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
KubernetesObjects = Annotated[
    list[dict[str, Any]],
    Field(
        max_length=64,
        json_schema_extra={"items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    ),
]
StringMap = Annotated[dict[str, str], Field(max_length=64)]
GPU_RESOURCE = re.compile(r"(nvidia|amd)\.com/(gpu|mig-).*|gpu\.intel\.com/.*")
"""The resource names of device plugins for GPUs, of parts of a GPU and of shared ones."""


class Resources(Section):
    """Compute resources of one pod, including `nvidia.com/gpu`."""

    requests: dict[str, Quantity] = Field(
        default_factory=dict, description="Resources the scheduler reserves, such as cpu: 4 or memory: 16Gi."
    )
    limits: dict[str, Quantity] = Field(
        default_factory=dict, description="Maximum resources; GPUs are requested here, such as nvidia.com/gpu: 8."
    )

    @property
    def gpus(self) -> int:
        """The number of GPUs, or parts of GPUs, that one pod requests."""
        count = 0
        for name, quantity in (self.requests | self.limits).items():
            if GPU_RESOURCE.fullmatch(name):
                # The API server rejects a pod whose number of GPUs is not whole.
                count += int(quantity) if str(quantity).isdecimal() else 1
        return count


class PodTemplate(Section):
    """The fields of a trainer pod that the user may set. The operator decides all others."""

    labels: StringMap = Field(default_factory=dict, description="Added to the pods; the operator's own labels win.")
    annotations: StringMap = Field(default_factory=dict, description="Added to the pods.")
    node_selector: StringMap = Field(default_factory=dict, description="Labels a node must have.")
    tolerations: KubernetesObjects = Field(
        default_factory=list, description="Added to the operator's tolerations for unreachable nodes."
    )
    affinity: FreeForm = Field(
        default_factory=dict, description="Added to the operator's podAntiAffinity, which prefers one pod per node."
    )
    env: KubernetesObjects = Field(default_factory=list, description="Environment variables of the trainer container.")
    volumes: KubernetesObjects = Field(default_factory=list, description="Additional volumes.")
    volume_mounts: KubernetesObjects = Field(default_factory=list, description="Where the additional volumes are mounted.")
    image_pull_secrets: list[str] = Field(
        default_factory=list, max_length=16, description="Names of the Secrets for pulling the image."
    )
    service_account_name: str | None = Field(
        None, max_length=253, description="ServiceAccount of the pods; its token is never mounted."
    )
    priority_class_name: str | None = Field(None, max_length=253, description="PriorityClass of the pods.")
    runtime_class_name: str | None = Field(None, max_length=253, description="RuntimeClass of the pods.")


class Workers(Section):
    """The trainer pods: one per node, with one process (rank) per GPU."""

    nodes: int = Field(1, ge=1, le=4096, description="Number of pods. Pods that request all GPUs of a node get a node each.")
    processes_per_node: int = Field(1, ge=1, le=64, description="Ranks per pod, which is its number of GPUs.")
    image: str | None = Field(None, max_length=512, description="Trainer image; defaults to the operator's setting.")
    resources: Resources = Resources()
    template: PodTemplate = PodTemplate()
