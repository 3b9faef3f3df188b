"""spec.managedBy: the operator ignores a job that another controller runs, as Kubernetes does with batch/v1 Jobs."""

from __future__ import annotations

from finetune_operator.api.scheduling import MANAGER, MULTIKUEUE_MANAGER
from finetune_operator.reconcile.plan import PlanBuilder


def skip_job_of_other_controller(plan: PlanBuilder) -> bool:
    """True if another controller runs the job; it owns the whole status."""
    plan.owns_status = manager(plan) == MANAGER
    return not plan.owns_status


def queues_job(plan: PlanBuilder) -> bool:
    """Whether the operator keeps the Workload of the job: for its own jobs, and for those that MultiKueue dispatches by it."""
    return manager(plan) in (MANAGER, MULTIKUEUE_MANAGER)


def manager(plan: PlanBuilder) -> str:
    """The controller that runs the job. A job with an invalid spec belongs to this operator, which reports the errors."""
    job = plan.observed.job
    return MANAGER if job is None else job.spec.managed_by or MANAGER
