"""A document that cannot be read fails at once, unless it runs already."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType
from finetune_operator.reconcile.cleanup import fail
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_trainer.protocol.outcome import Reason


def fail_invalid_document(draft: PlanBuilder) -> bool:
    """Fail a new job, naming the fields; leave the pods of a started one alone, as only the operator has changed."""
    if draft.seen.job is not None:
        return False
    validation_errors = "; ".join(draft.seen.validation_errors)
    if draft.status.start_time is None:
        fail(draft, Reason.INVALID_CONFIGURATION, f"The document cannot be used: {validation_errors}.")
        return True
    draft.condition(
        ConditionType.PODS_READY,
        "Unknown",
        ConditionReason.DOCUMENT_UNREADABLE,
        f"This version of the operator cannot read the document of a job that was started before: {validation_errors}. "
        "Its pods are left alone but no longer replaced; install the version that accepted it.",
    )
    return True
