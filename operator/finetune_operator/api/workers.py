"""On how many nodes a job runs, and what its pods look like."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from finetune_trainer.config.base import FreeForm, Section

Quantity = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
Objects = Annotated[
    list[dict[str, Any]],
    Field(
        max_length=64,
        json_schema_extra={"items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    ),
]
StringMap = Annotated[dict[str, str], Field(max_length=64)]


class Resources(Section):
    """Compute resources of one pod; `nvidia.com/gpu` belongs here."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class PodTemplate(Section):
    """What may be changed of a trainer pod. Everything else the operator decides."""

    labels: StringMap = Field(default_factory=dict)
    annotations: StringMap = Field(default_factory=dict)
    node_selector: StringMap = Field(default_factory=dict)
    tolerations: Objects = Field(default_factory=list)
    affinity: FreeForm = Field(default_factory=dict)
    env: Objects = Field(default_factory=list, description="Environment variables of the trainer container.")
    volumes: Objects = Field(default_factory=list)
    volume_mounts: Objects = Field(default_factory=list)
    image_pull_secrets: list[str] = Field(default_factory=list, max_length=16, description="Names of Secrets.")
    service_account_name: str | None = Field(None, max_length=253, description="Its token is never mounted.")
    priority_class_name: str | None = Field(None, max_length=253)
    runtime_class_name: str | None = Field(None, max_length=253)


class Workers(Section):
    """One pod a node, one process (rank) for each GPU."""

    nodes: int = Field(1, ge=1, le=4096, description="Pods, each on a node of its own where GPUs make it so.")
    processes_per_node: int = Field(1, ge=1, le=64, description="Ranks in each pod: as many as it has GPUs.")
    image: str | None = Field(None, max_length=512, description="Trainer image; the operator's default when absent.")
    resources: Resources = Resources()
    template: PodTemplate = PodTemplate()


class RunPolicy(Section):
    """How long and how often the job may try, and what becomes of it afterwards."""

    suspend: bool = Field(False, description="True frees the pods after a checkpoint; false starts them again from it.")
    backoff_limit: int = Field(3, ge=0, le=1000, description="Failures of pods before the job fails; disruptions do not count.")
    active_deadline_seconds: int | None = Field(
        None, ge=1, description="The job fails when it has been active this long, counted anew after a suspension."
    )
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, description="The job is deleted this long after it ended; models and checkpoints stay."
    )
    termination_grace_period_seconds: int = Field(
        120, ge=1, le=86400, description="Time a stopped pod has to store a checkpoint."
    )
