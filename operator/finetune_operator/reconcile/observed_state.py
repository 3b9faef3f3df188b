"""The observed state of a job: the input of a reconcile, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.reconcile.observed_pod import Pod, ReasonMessage
from finetune_operator.reconcile.observed_workload import Workload
from finetune_trainer.protocol.outcome import RunStatus


@dataclass(frozen=True, slots=True)
class MissingSecret:
    """A Secret that does not exist, and the field of the document that names it."""

    field: str
    name: str


@dataclass(frozen=True, slots=True)
class ObservedNodes:
    """The nodes of the cluster: those that are not ready with the time since when, and those that are.

    `has_ready_worker` is whether a ready node accepts pods.
    """

    not_ready_since: Mapping[str, datetime]
    ready: frozenset[str]
    has_ready_worker: bool


@dataclass(frozen=True, slots=True)
class ObservedState:
    """All inputs of one reconcile.

    `job` is None if the spec is invalid, and `validation_errors` lists the errors, which are limits of an administrator's
    profile if `is_refused_by_profile` is set. `pods` are the current pods of the job,
    `retained_pods` the failed ones that are kept for their logs after they were replaced. `unowned_pods` are the names of pods
    that an earlier job of this name owns. `create_error` is the API server's rejection of the last create request, if any,
    which is repeated at `create_retry_time`. `vanished_pods` existed at the last reconcile of this process and are gone.
    `start_problems` are warnings of the kubelet about pods that it does not get started, by UID.

    A queued job has a `workload`, unless it was just created; `workload_hash` identifies the spec that it should have.
    `workloads_synced` is false until Workloads were listed, `queue_error` says why that is impossible, and `placement_error`
    why it is unknown where the pods of an admitted job should run.
    `nodes` is None if no pod looks as if its node were lost, or if the operator may not list nodes. `responding_pods` are the
    UIDs of pods that answered the operator lately, `silent_pods` of those that have left several requests unanswered.
    `network_policy_is_current` is false until this process has created or updated the NetworkPolicy of the job.
    """

    name: str
    uid: str
    generation: int
    status: JobStatus
    now: datetime
    job: FineTuneJob | None
    validation_errors: tuple[str, ...] = ()
    is_refused_by_profile: bool = False
    pods: tuple[Pod, ...] = ()
    retained_pods: tuple[Pod, ...] = ()
    unowned_pods: tuple[str, ...] = ()
    run: RunStatus | None = None
    missing_secrets: tuple[MissingSecret, ...] = ()
    create_error: ReasonMessage | None = None
    workload: Workload | None = None
    workload_hash: str = ""
    workloads_synced: bool = True
    queue_error: ReasonMessage | None = None
    placement_error: ReasonMessage | None = None
    create_retry_time: datetime | None = None
    vanished_pods: tuple[Pod, ...] = ()
    start_problems: Mapping[str, ReasonMessage] = field(default_factory=dict)
    nodes: ObservedNodes | None = None
    responding_pods: frozenset[str] = frozenset()
    silent_pods: frozenset[str] = frozenset()
    network_policy_is_current: bool = True


def is_retained(status: JobStatus, pod: Pod) -> bool:
    """Whether a pod of the job failed, was replaced, and is kept for its log."""
    return pod.phase == "Failed" and pod.name in status.retained_pods
