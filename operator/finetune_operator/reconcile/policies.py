"""The order of the policies, and `reconcile`, which applies them."""

from __future__ import annotations

from collections.abc import Callable

from finetune_operator.reconcile import (
    cleanup,
    completion,
    deadline,
    elastic,
    force_delete,
    gang_start,
    managed_by,
    network_policy,
    node_avoidance,
    node_loss,
    pods,
    progress,
    queue,
    restart_policy,
    revision,
    status_reason,
    suspend,
    validation,
)
from finetune_operator.reconcile.observed_state import ObservedState
from finetune_operator.reconcile.plan import Plan, PlanBuilder, ReconcileTimings

Policy = Callable[[PlanBuilder], bool]

# A policy returns True to skip the policies after it. Final outcomes come before temporary ones: a completed run is complete
# even if its deadline has passed, and the pods that a suspension deletes are not counted as failures.
POLICIES: tuple[Policy, ...] = (
    force_delete.force_delete,
    cleanup.clean_up_finished,
    completion.complete,
    validation.fail_invalid_document,
    suspend.suspend,
    queue.wait_for_admission,
    revision.replace_outdated_pods,
    restart_policy.count_failures,
    deadline.enforce_deadline,
    node_avoidance.update_avoided_nodes,
    elastic.adjust_size,
    gang_start.release_blocked_pods,
    pods.ensure_pods,
    network_policy.update_network_policy,
    node_loss.report_lost_nodes,
    progress.report_progress,
)


def reconcile(observed: ObservedState, timings: ReconcileTimings | None = None) -> Plan:
    """The plan for the observed state of a job. Pure: equal states give equal plans."""
    plan = PlanBuilder(observed, timings or ReconcileTimings())
    if not managed_by.skip_job_of_other_controller(plan):
        _forget_deleted_pods(plan)
        _apply_policies(plan)
    elif managed_by.queues_job(plan):
        cleanup.delete_expired(plan)
    queue.sync_workload(plan)
    if plan.owns_status:
        status_reason.set_reason(plan)
    return plan.build()


def _apply_policies(plan: PlanBuilder) -> None:
    for policy in POLICIES:
        if policy(plan):
            return


def _forget_deleted_pods(plan: PlanBuilder) -> None:
    """Remove the UIDs of pods that no longer exist from the status."""
    existing = {pod.uid for pod in plan.observed.pods}
    counted = plan.status.counted_terminated_pods
    if not existing.issuperset(counted):
        plan.update_status(counted_terminated_pods=[uid for uid in counted if uid in existing])
