"""Pure policy: what a job, its pods and the time mean for its status and what to do about it.

`reconcile` is called whenever anything may have changed and once more costs nothing: it looks at what is, not at what
happened. Whatever must not happen twice (counting a failure) is in the status by the UID of the pod it concerns, and the
status is written before any action, so that an operator that dies between two writes finds its place again.
"""

from finetune_operator.reconcile.observed import Ending, MissingSecret, Pod, Seen, Trouble, read_pod
from finetune_operator.reconcile.one_pass import reconcile
from finetune_operator.reconcile.plan import (
    Action,
    CreatePod,
    CreateShared,
    DeleteJob,
    DeletePod,
    Limits,
    Note,
    Plan,
)

__all__ = [
    "Action", "CreatePod", "CreateShared", "DeleteJob", "DeletePod", "Ending", "Limits", "MissingSecret", "Note", "Plan",
    "Pod", "Seen", "Trouble", "read_pod", "reconcile",
]  # fmt: skip
