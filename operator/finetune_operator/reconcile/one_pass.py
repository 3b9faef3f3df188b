"""One pass over one job: the policies in their order."""

from __future__ import annotations

from finetune_operator.reconcile import completion, deadline, end, gang, progress, restart, stuck, suspend, validation
from finetune_operator.reconcile.observed import Seen
from finetune_operator.reconcile.plan import Draft, Limits, Plan

# Each may end the pass by returning True. What is final comes before what is passing: a run that is complete is
# complete although its deadline is over, and a suspended job does not count the pods that it stops as failures.
POLICIES = (
    stuck.release,
    end.after_the_end,
    completion.complete,
    validation.refuse_mistakes,
    suspend.suspend,
    restart.count_failures,
    deadline.enforce,
    gang.keep_pods,
    progress.report,
)


def reconcile(seen: Seen, limits: Limits | None = None) -> Plan:
    """The status and the actions that follow from what is seen; pure, so that the same sight gives the same plan."""
    draft = Draft(seen, limits or Limits())
    present = {pod.uid for pod in seen.pods}
    if not present.issuperset(seen.status.counted_pods):
        draft.update(counted_pods=[uid for uid in seen.status.counted_pods if uid in present])
    for policy in POLICIES:
        if policy(draft):
            break
    return draft.plan()
