"""The trainer pods: how many there are, what they run, and the sizes of their volumes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_operator.api.pod_template import PodTemplate
from finetune_operator.api.resources import Quantity, Resources
from finetune_trainer.config.base import Rule, Section


class ScratchVolume(Section):
    """The volume at /work: prepared data, checkpoints on their way to the storage, HOME and caches."""

    type: Literal["EmptyDir", "Memory", "PersistentVolume"] | None = Field(
        None,
        description="EmptyDir, the default, is on the node's disk, Memory in its memory; PersistentVolume is a generic "
        "ephemeral volume, which is deleted with the pod.",
    )
    size: Quantity | None = Field(
        None,
        description="Such as 200Gi. A pod that exceeds the size of an EmptyDir is evicted; the default is no limit.",
    )
    storage_class_name: str | None = Field(None, max_length=253, description="StorageClass of a PersistentVolume.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.type) || self.type != 'PersistentVolume' || has(self.size)",
            "a PersistentVolume needs a size: add scratch.size",
            "size",
        ),
        Rule(
            "!has(self.storageClassName) || (has(self.type) && self.type == 'PersistentVolume')",
            "only a PersistentVolume has a StorageClass: remove scratch.storageClassName, or set type: PersistentVolume",
            "storageClassName",
        ),
    )


class Workers(Section):
    """The trainer pods: one per node, with one process (rank) per GPU."""

    nodes: int = Field(1, ge=1, le=4096, description="Number of pods. Pods that request all GPUs of a node get a node each.")
    min_nodes: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Smallest number of pods with which the run goes on while others are missing; see runPolicy.elastic. With "
        "it, nodes may change while the job runs. Numbers in between are used if they divide training.batchSize.",
    )
    processes_per_node: int = Field(1, ge=1, le=64, description="Ranks per pod, which is its number of GPUs.")
    profile: str | None = Field(
        None,
        max_length=63,
        description="Name of the administrator's profile with defaults and limits; chosen by namespace if absent.",
    )
    image: str | None = Field(
        None, max_length=512, description="Trainer image; defaults to the profile's, then to the operator's setting."
    )
    resources: Resources = Resources()
    scratch: ScratchVolume = ScratchVolume()
    shared_memory: Quantity | None = Field(
        None, description="Size of /dev/shm, which counts towards the pod's memory; half of the node's memory if absent."
    )
    template: PodTemplate = PodTemplate()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.minNodes) || self.minNodes <= self.nodes",
            "nodes must not be below minNodes: use more nodes, or suspend the job and lower minNodes",
            "nodes",
        ),
    )
