"""What the end of a pod means."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_operator.api.conditions import ConditionReason
from finetune_operator.reconcile.observed_state import Pod, TerminatedState
from finetune_trainer.protocol.outcome import EXIT_POLICIES, REASON_OF_EXIT_CODE, Outcome, Reason

MEMORY_ADVICE = (
    "the container was killed for using more memory than its limit: raise workers.resources.limits.memory, "
    "or lower training.microBatchSize or data.maxLength"
)


@dataclass(frozen=True, slots=True)
class PodFailure:
    """Why a pod ended or is about to. `culprit` is the index of the node that failed first; peers may follow it down."""

    pod: Pod
    reason: str
    message: str
    culprit: int
    rank: int | None = None
    final: bool = False
    disruption: bool = False
    outcome: Outcome | None = None


def outcome_of(pod: Pod) -> Outcome | None:
    """The last word of a pod's agent, if it had one. Fields of a newer trainer are ignored."""
    if pod.ending is None or not pod.ending.message:
        return None
    try:
        return Outcome.model_validate_json(pod.ending.message, extra="ignore")
    except ValidationError:
        return None


def classify(pod: Pod) -> PodFailure:
    """What became of a pod that failed or is being deleted by somebody else."""
    outcome = outcome_of(pod)
    killed_for_memory = pod.ending is not None and pod.ending.reason == "OOMKilled"
    if outcome is not None and not outcome.exit_policy.retry:
        return _from_termination_message(pod, outcome)
    if pod.disruption is not None:
        return PodFailure(
            pod,
            ConditionReason.DISRUPTED,
            f"{pod.disruption.reason}: {pod.disruption.message}".rstrip(": "),
            pod.index,
            disruption=True,
            outcome=outcome,
        )
    if pod.deletion_deadline is not None:
        message = "the pod was deleted by somebody else"
        return PodFailure(pod, ConditionReason.POD_DELETED, message, pod.index, disruption=True, outcome=outcome)
    if killed_for_memory and (outcome is None or outcome.reason is Reason.CRASHED):
        return PodFailure(pod, Reason.OUT_OF_MEMORY, MEMORY_ADVICE, pod.index, final=True, outcome=outcome)
    if outcome is not None:
        return _from_termination_message(pod, outcome)
    if pod.ending is None:
        return PodFailure(pod, ConditionReason.DISRUPTED, "the pod failed before its container ran", pod.index, disruption=True)
    return _from_exit_code(pod, pod.ending)


def _from_termination_message(pod: Pod, outcome: Outcome) -> PodFailure:
    exit_policy = outcome.exit_policy
    return PodFailure(
        pod,
        outcome.reason,
        outcome.message or exit_policy.meaning,
        pod.index if outcome.node is None else outcome.node,
        rank=outcome.rank,
        final=not exit_policy.retry,
        disruption=exit_policy.disruption,
        outcome=outcome,
    )


def _from_exit_code(pod: Pod, ending: TerminatedState) -> PodFailure:
    reason = REASON_OF_EXIT_CODE.get(ending.exit_code, Reason.CRASHED)
    exit_policy = EXIT_POLICIES[reason]
    message = f"{_how(ending)} and left no message"
    if last := ending.message.strip().splitlines()[-1:]:
        message = f"{_how(ending)}; the last line of its log is: {last[0][:500]}"
    return PodFailure(pod, reason, message, pod.index, final=not exit_policy.retry, disruption=exit_policy.disruption)


def _how(ending: TerminatedState) -> str:
    number = ending.exit_code - 128
    if number in set(signal.Signals):
        return f"the container was killed by {signal.Signals(number).name}"
    return f"the container ended with exit code {ending.exit_code}"
