"""Pure policy: what a job, its pods and the time mean for its status and what to do about it.

`reconcile` is called whenever anything may have changed and once more costs nothing: it looks at what is, not at what
happened. Whatever must not happen twice (counting a failure) is in the status by the UID of the pod it concerns, and the
status is written before any action, so that an operator that dies between two writes finds its place again.
"""

from finetune_operator.reconcile.observed_state import (
    MissingSecret,
    ObservedState,
    Pod,
    ReasonMessage,
    TerminatedState,
    read_pod,
)
from finetune_operator.reconcile.plan import Action, CreateJobResources, CreatePod, DeleteJob, DeletePod, Event, Limits, Plan
from finetune_operator.reconcile.reconcile import reconcile

__all__ = [
    "Action",
    "CreateJobResources",
    "CreatePod",
    "DeleteJob",
    "DeletePod",
    "Event",
    "Limits",
    "MissingSecret",
    "ObservedState",
    "Plan",
    "Pod",
    "ReasonMessage",
    "TerminatedState",
    "read_pod",
    "reconcile",
]  # fmt: skip
