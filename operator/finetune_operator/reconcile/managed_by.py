"""spec.managedBy: the operator ignores a job that another controller runs, as Kubernetes does with batch/v1 Jobs."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType, is_true
from finetune_operator.api.scheduling import MANAGER, MULTIKUEUE_MANAGER
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.status_reason import set_reason


def skip_job_of_other_controller(plan: PlanBuilder) -> bool:
    """True if another controller runs the job; it owns the whole status."""
    plan.owns_status = manager(plan) == MANAGER
    return not plan.owns_status


def report_stopped(plan: PlanBuilder, cause: str) -> None:
    """Update the status of a job that has stopped in another cluster.

    MultiKueue copies the status of a job that runs there, but not that of one that waits, which would seem to run for ever.
    """
    is_suspended = plan.job.spec.run_policy.suspend
    reason = ConditionReason.SUSPENDED if is_suspended else ConditionReason.EVICTED
    plan.update_status(phase="Suspended" if is_suspended else "Pending", workers=plan.status.workers.without_pods(), eta=None)
    plan.set_condition(ConditionType.QUOTA_RESERVED, False, reason, cause)
    plan.set_condition(ConditionType.PODS_READY, False, reason, "A job that waits for its queue has no pods.")
    if is_true(plan.status.conditions, ConditionType.RUNNING):
        plan.set_condition(ConditionType.RUNNING, False, reason, cause)
    set_reason(plan)


def queues_job(plan: PlanBuilder) -> bool:
    """Whether the operator keeps the Workload of the job: for its own jobs, and for those that MultiKueue dispatches by it."""
    return manager(plan) in (MANAGER, MULTIKUEUE_MANAGER)


def manager(plan: PlanBuilder) -> str:
    """The controller that runs the job. A job with an invalid spec belongs to this operator, which reports the errors."""
    job = plan.observed.job
    return MANAGER if job is None else job.spec.managed_by or MANAGER
