"""Reconcile policy: pure functions from the observed state of a job to its next status and the actions to take.

`reconcile` is level-triggered: it looks at the current state, not at events, and an additional call is harmless. Operations
that must happen only once, such as counting a failure, are recorded in the status under the UID of the pod. The status is
written before any action, so an operator that stops between two writes continues correctly after a restart.
"""

from finetune_operator.reconcile.observed_containers import FailedContainer
from finetune_operator.reconcile.observed_pod import InvalidPodError, Pod, ReasonMessage, TerminatedState, parse_pod
from finetune_operator.reconcile.observed_state import MissingSecret, ObservedNodes, ObservedState, is_retained
from finetune_operator.reconcile.observed_workload import Workload, WorkloadCondition, parse_workload
from finetune_operator.reconcile.plan import (
    Action,
    CreateJobResources,
    CreatePod,
    DeleteJob,
    DeletePod,
    DeleteWorkload,
    EnsureWorkload,
    Event,
    Plan,
    ReconcileTimings,
    SetWorkloadActive,
    UpdateNetworkPolicy,
    UpdateWorkloadStatus,
    WorkloadAction,
)
from finetune_operator.reconcile.policies import reconcile

__all__ = [
    "Action",
    "CreateJobResources",
    "CreatePod",
    "DeleteJob",
    "DeletePod",
    "DeleteWorkload",
    "EnsureWorkload",
    "Event",
    "FailedContainer",
    "InvalidPodError",
    "MissingSecret",
    "ObservedNodes",
    "ObservedState",
    "Plan",
    "Pod",
    "ReasonMessage",
    "ReconcileTimings",
    "SetWorkloadActive",
    "TerminatedState",
    "UpdateNetworkPolicy",
    "UpdateWorkloadStatus",
    "Workload",
    "WorkloadAction",
    "WorkloadCondition",
    "is_retained",
    "parse_pod",
    "parse_workload",
    "reconcile",
]
