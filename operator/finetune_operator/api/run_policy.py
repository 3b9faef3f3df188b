"""The policy of a run: suspension, retries, time limits and cleanup."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_operator.api.elastic import Elastic
from finetune_operator.api.failure_policy import FailurePolicy
from finetune_trainer.config.base import Section
from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.config.preflight import PreflightConfig


class RunPolicy(Section):
    """Suspension, retries, time limits and cleanup of the job."""

    suspend: bool = Field(
        False, description="True stores a checkpoint and deletes the pods; false starts them again from that checkpoint."
    )
    backoff_limit: int = Field(
        3,
        ge=0,
        le=1000,
        description="Number of pod failures to recover from; one more fails the job. Disruptions are not counted, "
        "see maxDisruptionsPerHour.",
    )
    failure_policy: FailurePolicy = FailurePolicy()
    max_disruptions_per_hour: int = Field(
        20,
        ge=0,
        le=1000,
        description="Number of disruptions within an hour, without a newer checkpoint, that are not counted. A further one "
        "counts towards backoffLimit, so that a loop of evictions ends. Pods that are disrupted together are one disruption.",
    )
    active_deadline_seconds: int | None = Field(
        None, ge=1, description="The job fails after running for this long; a suspension resets the clock."
    )
    node_lost_seconds: int | None = Field(
        None,
        ge=0,
        le=86400,
        description="Time after which a pod on a lost node is replaced, from when Kubernetes reports the node as not ready. "
        "Defaults to the operator's --node-lost-seconds (30).",
    )
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, description="The job is deleted this long after it finishes; its checkpoints and model are kept."
    )
    pending_timeout_seconds: int = Field(
        900,
        ge=0,
        le=604800,
        description="When a pod cannot start for this long while others hold resources, all pods of the job are deleted and "
        "created again after a growing pause, so that two jobs cannot wait for each other. 0 lets them wait for ever.",
    )
    pending_retry_limit: int = Field(
        10,
        ge=0,
        le=1000,
        description="Number of times in a row that pods which could not start are created again; one more fails the job. It is "
        "reset when all pods are ready.",
    )
    elastic: Elastic = Elastic()
    keep_failed_pods: Literal["UntilFinished", "Always", "Never"] = Field(
        "UntilFinished",
        description="How long the newest failed pod of each node is kept for its log after it was replaced: until the job "
        "succeeds (a failed job keeps it), as long as the job exists, or not at all.",
    )
    hang: HangLimits = HangLimits()
    preflight: PreflightConfig | None = Field(
        None, description="Check of the nodes before ranks start in new pods; by default there is none."
    )
    termination_grace_period_seconds: int = Field(
        120, ge=1, le=86400, description="Time a pod has to store a checkpoint after it receives SIGTERM."
    )
