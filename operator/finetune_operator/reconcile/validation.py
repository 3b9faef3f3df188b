"""A job with an invalid spec fails at once, unless the operator has accepted its spec before."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_trainer.protocol.outcome import Reason


def fail_invalid_document(plan: PlanBuilder) -> bool:
    """Fail a new job whose spec is invalid, with a message that names the fields. True if the spec is invalid.

    A job that has a status was valid for the version of the operator that wrote it, so it is left alone with its pods,
    whether it runs, waits or is suspended. A job without a status has no pods yet.
    """
    if plan.observed.job is not None:
        return False
    validation_errors = "; ".join(plan.observed.validation_errors)
    if plan.status.observed_generation is None:
        fail(plan, Reason.INVALID_CONFIGURATION, f"The spec is invalid: {validation_errors}.")
        return True
    plan.set_condition(
        ConditionType.PODS_READY,
        "Unknown",
        ConditionReason.INVALID_SPEC,
        f"The spec is invalid for this version of the operator, which therefore leaves the job alone: {validation_errors}. "
        "Pods that run keep running but are not replaced: install the version of the operator that accepted the job.",
    )
    return True
