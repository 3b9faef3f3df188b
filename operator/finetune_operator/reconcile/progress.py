"""What the run says of itself, in the status."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_trainer.protocol.outcome import DataSummary, Outcome, Progress, SavedCheckpoint


def report(draft: PlanBuilder) -> bool:
    """Take over progress and checkpoints of node 0."""
    run = draft.seen.run
    if draft.status.phase == "Running":
        activity = run.activity if run is not None else "Starting"
        draft.condition(ConditionType.RUNNING, True, activity, f"The run is {activity.lower()}.")
    if run is None:
        return False
    _record_data(draft, run.data)
    if run.progress.total_steps:  # a restarted run does not know yet where it stands
        draft.update(progress=_readable(run.progress), eta=duration(run.progress.remaining_seconds))
    if run.checkpoint is not None:
        draft.update(checkpoint=run.checkpoint)
    if run.checkpoint_error is not None:
        draft.condition(
            ConditionType.CHECKPOINT_HEALTHY,
            False,
            ConditionReason.CHECKPOINT_NOT_STORED,
            f"The newest checkpoint could not be stored, training goes on: {run.checkpoint_error}",
        )
    elif run.checkpoint is not None:
        _stored(draft, run.checkpoint)
    return False


def _record_data(draft: PlanBuilder, data: DataSummary | None) -> None:
    """What the data is like; its findings are told once."""
    if data is None or data == draft.status.data:
        return
    known = draft.status.data.findings if draft.status.data is not None else []
    for finding in data.findings:
        if finding not in known:
            draft.note("Warning", ConditionReason.DATA_FINDING, f"Data: {finding}")
    draft.update(data=data)


def _stored(draft: PlanBuilder, checkpoint: SavedCheckpoint) -> None:
    draft.condition(
        ConditionType.CHECKPOINT_HEALTHY, True, ConditionReason.CHECKPOINT_STORED, f"Step {checkpoint.step} is stored."
    )


def record_outcome(draft: PlanBuilder, outcome: Outcome) -> None:
    """Take over how far a run came and what it stored last, as it said when it ended."""
    _record_data(draft, outcome.data)
    draft.update(
        checkpoint=outcome.checkpoint or draft.status.checkpoint,
        progress=_readable(outcome.progress) if outcome.progress.total_steps else draft.status.progress,
    )
    if outcome.checkpoint is not None:
        _stored(draft, outcome.checkpoint)
    draft.must_not_wait = True  # the pod, and its word with it, is about to go


def _readable(progress: Progress) -> Progress:
    """The same in as many digits as people read; Prometheus has them all."""

    def rounded(value: float | None, digits: int) -> float | None:
        return None if value is None else round(value, digits)

    return progress.model_copy(
        update={
            "epoch": round(progress.epoch, 3),
            "tokens_per_second": rounded(progress.tokens_per_second, 1),
            "loss": rounded(progress.loss, 4),
            "eval_loss": rounded(progress.eval_loss, 4),
        }
    )


def duration(seconds: int | None) -> str | None:
    """Remaining time as people write it: 45s, 12m, 1h05m, 2d03h."""
    if seconds is None:
        return None
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24:02}h"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    return f"{minutes}m" if minutes else f"{seconds}s"
