"""One pass over one job: the policies in their order."""

from __future__ import annotations

from finetune_operator.reconcile import (
    cleanup,
    completion,
    deadline,
    force_delete,
    pods,
    progress,
    restart_policy,
    suspend,
    validation,
)
from finetune_operator.reconcile.observed_state import ObservedState
from finetune_operator.reconcile.plan import Limits, Plan, PlanBuilder

# Each may end the pass by returning True. What is final comes before what is passing: a run that is complete is
# complete although its deadline is over, and a suspended job does not count the pods that it stops as failures.
POLICIES = (
    force_delete.force_delete,
    cleanup.after_finished,
    completion.complete,
    validation.fail_invalid_document,
    suspend.suspend,
    restart_policy.count_failures,
    deadline.enforce,
    pods.ensure_pods,
    progress.report,
)


def reconcile(seen: ObservedState, limits: Limits | None = None) -> Plan:
    """The status and the actions that follow from what is seen; pure, so that the same sight gives the same plan."""
    draft = PlanBuilder(seen, limits or Limits())
    present = {pod.uid for pod in seen.pods}
    if not present.issuperset(seen.status.counted_terminated_pods):
        draft.update(counted_terminated_pods=[uid for uid in seen.status.counted_terminated_pods if uid in present])
    for policy in POLICIES:
        if policy(draft):
            break
    return draft.plan()
