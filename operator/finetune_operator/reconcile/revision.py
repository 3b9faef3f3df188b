"""A document that changed while its job was suspended: pods of the old document end before pods of the new one are created."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType
from finetune_operator.reconcile.group import set_ready_pods
from finetune_operator.reconcile.observed_pod import Pod
from finetune_operator.reconcile.plan import PlanBuilder


def replace_outdated_pods(plan: PlanBuilder) -> bool:
    """Delete the pods of an earlier document. True while there are any: no pod is created, and no failure counted, beside them.

    A suspension deletes all pods, but they may still be terminating when the job is resumed, and an operator that was away
    never saw the suspension.
    """
    outdated = [pod for pod in plan.observed.pods if _is_outdated(plan, pod)]
    if not outdated:
        return False
    plan.mark_for_deletion(*plan.observed.pods)
    plan.update_status(eta=None)
    set_ready_pods(plan, 0)
    if plan.status.phase == "Running":
        plan.update_status(phase="Pending")
        plan.set_condition(ConditionType.RUNNING, False, ConditionReason.PREVIOUS_PODS_TERMINATING, "The job was changed.")
    names_of_pods = ", ".join(pod.name for pod in outdated)
    message = f"The job was changed; new pods are created when its previous ones have terminated: {names_of_pods}."
    plan.set_condition(ConditionType.PODS_READY, False, ConditionReason.PREVIOUS_PODS_TERMINATING, message)
    return True


def _is_outdated(plan: PlanBuilder, pod: Pod) -> bool:
    """Whether a pod was made from another document than the current one.

    Without an edit the document is the same: another version of the operator may only compute its digest differently.
    """
    was_edited = pod.generation != plan.job.metadata.generation
    return was_edited and pod.revision not in ("", plan.job.revision)
