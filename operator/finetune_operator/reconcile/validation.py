"""A document that cannot be read fails at once, unless it runs already."""

from __future__ import annotations

from finetune_operator.conditions import Type, Why
from finetune_operator.reconcile.end import fail
from finetune_operator.reconcile.plan import Draft
from finetune_trainer.outcome import Reason


def refuse_mistakes(draft: Draft) -> bool:
    """Fail a new job, naming the fields; leave the pods of a started one alone, as only the operator has changed."""
    if draft.seen.job is not None:
        return False
    mistakes = "; ".join(draft.seen.mistakes)
    if draft.status.start_time is None:
        fail(draft, Reason.INVALID_CONFIGURATION, f"The document cannot be used: {mistakes}.")
        return True
    draft.condition(
        Type.PODS_READY,
        "Unknown",
        Why.DOCUMENT_UNREADABLE,
        f"This version of the operator cannot read the document of a job that was started before: {mistakes}. "
        "Its pods are left alone but no longer replaced; install the version that accepted it.",
    )
    return True
