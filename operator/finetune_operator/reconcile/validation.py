"""A job with an invalid spec, or one that its profile refuses, fails at once, unless the operator has accepted it before."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_trainer.protocol.outcome import Reason


def fail_invalid_document(plan: PlanBuilder) -> bool:
    """Fail a new job whose spec is invalid, with a message that names the fields. True if the spec is invalid.

    A job that has a status was valid for the version of the operator that wrote it, and for the profiles of that time, so it is
    left alone with its pods, whether it runs, waits or is suspended. A job without a status has no pods yet.
    """
    if plan.observed.job is not None:
        return False
    observed = plan.observed
    errors = "; ".join(observed.validation_errors)
    subject = "A profile refuses the job" if observed.is_refused_by_profile else "The spec is invalid"
    if plan.status.observed_generation is None:
        fail(plan, Reason.INVALID_CONFIGURATION, f"{subject}: {errors}.")
        return True
    if observed.is_refused_by_profile:
        reason = ConditionReason.REFUSED_BY_PROFILE
        message = (
            f"{subject}, although it was accepted before: {errors}. Pods that run keep running but are not replaced until the "
            "profile allows the job again."
        )
    else:
        reason = ConditionReason.INVALID_SPEC
        message = (
            f"{subject} for this version of the operator, which therefore leaves the job alone: {errors}. Pods that run keep "
            "running but are not replaced: install the version of the operator that accepted the job."
        )
    plan.set_condition(ConditionType.PODS_READY, "Unknown", reason, message)
    return True
