"""Classifies the failure of a pod: its reason, the pod that caused it, and whether a retry can help."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.reconcile.observed_pod import Pod, TerminatedState
from finetune_trainer.protocol.outcome import EXIT_POLICIES, REASON_OF_EXIT_CODE, Outcome, Reason

OUT_OF_MEMORY = (
    "the container was killed because it exceeded its memory limit: raise workers.resources.limits.memory, "
    "or lower training.microBatchSize or data.maxLength"
)
MAX_LOG_CHARACTERS = 500  # of the last log line in a message


@dataclass(frozen=True, slots=True)
class PodFailure:
    """Why a pod failed or is being deleted.

    `origin` is the index of the node that failed first; a failure of one node can terminate the pods of others.
    `is_permanent` means that a retry cannot help, so the job fails. `is_disruption` means that the cause is outside the run,
    so the failure does not count towards backoffLimit.
    """

    pod: Pod
    reason: str
    message: str
    origin: int
    rank: int | None = None
    is_permanent: bool = False
    is_disruption: bool = False
    outcome: Outcome | None = None


def parse_outcome(pod: Pod) -> Outcome | None:
    """The outcome in the termination message of a pod, or None if there is none. Fields of a newer trainer are ignored."""
    if pod.terminated is None or not pod.terminated.message:
        return None
    try:
        return Outcome.model_validate_json(pod.terminated.message, extra="ignore")
    except ValidationError:
        return None


def classify(pod: Pod) -> PodFailure:
    """The failure of a pod that failed or that another client deletes. The most certain evidence comes first."""
    outcome = parse_outcome(pod)
    if outcome is not None and not outcome.exit_policy.retry:
        return _from_termination_message(pod, outcome)
    if pod.disruption is not None:
        message = f"{pod.disruption.reason}: {pod.disruption.message}".rstrip(": ")
        return PodFailure(pod, ConditionReason.DISRUPTED, message, pod.index, is_disruption=True, outcome=outcome)
    if pod.is_being_deleted:
        message = "the pod was deleted by another client"
        return PodFailure(pod, ConditionReason.POD_DELETED, message, pod.index, is_disruption=True, outcome=outcome)
    if _is_killed_for_memory(pod) and (outcome is None or outcome.reason is Reason.CRASHED):
        return PodFailure(pod, Reason.OUT_OF_MEMORY, OUT_OF_MEMORY, pod.index, is_permanent=True, outcome=outcome)
    if outcome is not None:
        return _from_termination_message(pod, outcome)
    if pod.terminated is None:
        message = "the pod failed before its container started"
        return PodFailure(pod, ConditionReason.DISRUPTED, message, pod.index, is_disruption=True)
    return _from_exit_code(pod, pod.terminated)


def _is_killed_for_memory(pod: Pod) -> bool:
    return pod.terminated is not None and pod.terminated.reason == "OOMKilled"


def _from_termination_message(pod: Pod, outcome: Outcome) -> PodFailure:
    exit_policy = outcome.exit_policy
    return PodFailure(
        pod,
        outcome.reason,
        outcome.message or exit_policy.meaning,
        pod.index if outcome.node is None else outcome.node,
        rank=outcome.rank,
        is_permanent=not exit_policy.retry,
        is_disruption=exit_policy.disruption,
        outcome=outcome,
    )


def _from_exit_code(pod: Pod, terminated: TerminatedState) -> PodFailure:
    reason = REASON_OF_EXIT_CODE.get(terminated.exit_code, Reason.CRASHED)
    exit_policy = EXIT_POLICIES[reason]
    cause = _describe_exit_code(terminated.exit_code)
    log_lines = terminated.message.strip().splitlines()
    if log_lines:
        message = f"{cause}; the last line of its log is: {log_lines[-1][:MAX_LOG_CHARACTERS]}"
    else:
        message = f"{cause} without a termination message"
    return PodFailure(pod, reason, message, pod.index, is_permanent=not exit_policy.retry, is_disruption=exit_policy.disruption)


def _describe_exit_code(exit_code: int) -> str:
    number = exit_code - 128
    if number in set(signal.Signals):
        return f"the container was killed by {signal.Signals(number).name}"
    return f"the container terminated with exit code {exit_code}"
