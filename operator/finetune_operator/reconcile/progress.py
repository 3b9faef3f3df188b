"""Records the data summary, progress and checkpoints that the trainer reports in the status."""

from __future__ import annotations

from finetune_operator.api.conditions import ConditionReason, ConditionType, find_condition
from finetune_operator.reconcile.node_loss import is_waiting_for_node
from finetune_operator.reconcile.plan import PlanBuilder
from finetune_operator.reconcile.pod_failure import parse_outcome
from finetune_trainer.protocol.outcome import (
    DataSummary,
    LossAnomalies,
    Outcome,
    Progress,
    RunStatus,
    SavedCheckpoint,
    Straggler,
)


def report_progress(plan: PlanBuilder) -> bool:
    """Record the run status of node 0, and update the conditions Running and CheckpointHealthy."""
    run = plan.observed.run
    if plan.status.phase == "Running" and not is_waiting_for_node(plan):
        _report_activity(plan, run or RunStatus())
    if run is None:
        return False
    _record_data(plan, run.data)
    _record_stragglers(plan, run.stragglers)
    _record_loss_anomalies(plan, run.loss_anomalies)
    if run.progress.total_steps:  # a restarted run reports no progress until it has loaded its checkpoint
        plan.update_status(progress=_rounded(run.progress), eta=format_duration(run.progress.remaining_seconds))
    if run.checkpoint is not None:
        plan.update_status(checkpoint=run.checkpoint)
    if run.checkpoint_error is not None:
        plan.set_condition(
            ConditionType.CHECKPOINT_HEALTHY,
            False,
            ConditionReason.CHECKPOINT_SAVE_FAILED,
            f"The newest checkpoint could not be saved; training continues: {run.checkpoint_error}",
        )
    elif run.checkpoint is not None:
        _mark_checkpoint_healthy(plan, run.checkpoint)
    return False


def _report_activity(plan: PlanBuilder, run: RunStatus) -> None:
    """Record what the run does, and why its ranks were last restarted in place, with one event for each new cause."""
    message = f"The run is {run.activity.lower()}."
    if run.restart_cause is not None:
        restarted = f"The ranks were restarted in place: {run.restart_cause}"
        previous = find_condition(plan.status.conditions, ConditionType.RUNNING)
        if previous is None or restarted not in previous.message:
            plan.emit_event("Warning", ConditionReason.RANKS_RESTARTED, restarted)
        message = f"{message} {restarted}"
    plan.set_condition(ConditionType.RUNNING, True, run.activity, message)


def record_checkpoints(plan: PlanBuilder) -> None:
    """Record the checkpoints that pods saved while they terminated; they show that the run has progressed."""
    for pod in plan.observed.pods:
        outcome = parse_outcome(pod)
        if outcome is None or outcome.checkpoint is None:
            continue
        recorded = plan.status.checkpoint
        if recorded is None or outcome.checkpoint.step > recorded.step:
            plan.update_status(checkpoint=outcome.checkpoint)
            _mark_checkpoint_healthy(plan, outcome.checkpoint)
            plan.force_write = True  # the termination message is lost when the pod is deleted


def record_outcome(plan: PlanBuilder, outcome: Outcome) -> None:
    """Record the final progress and the last checkpoint from the termination message of a pod."""
    _record_data(plan, outcome.data)
    if outcome.progress.total_steps:
        plan.update_status(progress=_rounded(outcome.progress))
    if outcome.checkpoint is not None:
        plan.update_status(checkpoint=outcome.checkpoint)
        _mark_checkpoint_healthy(plan, outcome.checkpoint)
    plan.force_write = True  # the termination message is lost when the pod is deleted


def _record_data(plan: PlanBuilder, data: DataSummary | None) -> None:
    """Record the data summary, with one event for each new finding."""
    previous = plan.status.data
    if data is None or data == previous:
        return
    known_findings = previous.findings if previous is not None else []
    for finding in data.findings:
        if finding not in known_findings:
            plan.emit_event("Warning", ConditionReason.DATA_FINDING, f"Data: {finding}")
    plan.update_status(data=data)


def _record_stragglers(plan: PlanBuilder, stragglers: list[Straggler]) -> None:
    """Record the slow ranks, with one event for each new one."""
    known = {straggler.rank for straggler in plan.status.stragglers}
    for straggler in stragglers:
        if straggler.rank not in known:
            message = (
                f"Rank {straggler.rank} on {_place(plan, straggler.node)} is slow: its work in a step takes "
                f"{straggler.ratio:.2f} times as long as that of the other ranks, which wait for it; check the load, clocks "
                "and disk of that node."
            )
            plan.emit_event("Warning", ConditionReason.STRAGGLER, message)
    if stragglers != plan.status.stragglers:
        plan.update_status(stragglers=stragglers)


def _record_loss_anomalies(plan: PlanBuilder, anomalies: LossAnomalies | None) -> None:
    """Record the skipped steps and returns to a checkpoint, with an event for the last one."""
    if anomalies is None or anomalies == plan.status.loss_anomalies:
        return
    plan.emit_event("Warning", ConditionReason.LOSS_ANOMALY, f"Loss anomaly: {anomalies.message}.")
    plan.update_status(loss_anomalies=anomalies)


def _place(plan: PlanBuilder, node: int) -> str:
    """Where the ranks of a node run, for messages."""
    pod = next((pod for pod in plan.observed.pods if pod.index == node and not pod.is_finished), None)
    return f"pod {pod.name} (Kubernetes node {pod.node})" if pod is not None else f"node {node}"


def _mark_checkpoint_healthy(plan: PlanBuilder, checkpoint: SavedCheckpoint) -> None:
    message = f"The checkpoint of step {checkpoint.step} is saved."
    plan.set_condition(ConditionType.CHECKPOINT_HEALTHY, True, ConditionReason.CHECKPOINT_SAVED, message)


def _rounded(progress: Progress) -> Progress:
    """Progress rounded for the status; Prometheus has all digits."""
    return progress.model_copy(
        update={
            "epoch": round(progress.epoch, 3),
            "tokens_per_second": _round_optional(progress.tokens_per_second, 1),
            "loss": _round_optional(progress.loss, 4),
            "eval_loss": _round_optional(progress.eval_loss, 4),
        }
    )


def _round_optional(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def format_duration(seconds: int | None) -> str | None:
    """A duration in a short form: 45s, 12m, 1h05m, 2d03h."""
    if seconds is None:
        return None
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24:02}h"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    if minutes:
        return f"{minutes}m"
    return f"{seconds}s"
