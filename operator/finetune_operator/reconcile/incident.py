"""What the end of a pod means."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_operator.conditions import Why
from finetune_operator.reconcile.observed import Ending, Pod
from finetune_trainer.outcome import REASON_OF_EXIT_CODE, VERDICTS, Outcome, Reason

MEMORY_ADVICE = (
    "the container was killed for using more memory than its limit: raise workers.resources.limits.memory, "
    "or lower training.microBatchSize or data.maxLength"
)


@dataclass(frozen=True, slots=True)
class Incident:
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


def judge(pod: Pod) -> Incident:
    """What became of a pod that failed or is being deleted by somebody else."""
    outcome = outcome_of(pod)
    killed_for_memory = pod.ending is not None and pod.ending.reason == "OOMKilled"
    if outcome is not None and not outcome.verdict.retry:
        return _told(pod, outcome)
    if pod.disruption is not None:
        return Incident(
            pod,
            Why.DISRUPTED,
            f"{pod.disruption.reason}: {pod.disruption.message}".rstrip(": "),
            pod.index,
            disruption=True,
            outcome=outcome,
        )
    if pod.gone_by is not None:
        message = "the pod was deleted by somebody else"
        return Incident(pod, Why.POD_DELETED, message, pod.index, disruption=True, outcome=outcome)
    if killed_for_memory and (outcome is None or outcome.reason is Reason.CRASHED):
        return Incident(pod, Reason.OUT_OF_MEMORY, MEMORY_ADVICE, pod.index, final=True, outcome=outcome)
    if outcome is not None:
        return _told(pod, outcome)
    if pod.ending is None:
        return Incident(pod, Why.DISRUPTED, "the pod failed before its container ran", pod.index, disruption=True)
    return _inferred(pod, pod.ending)


def _told(pod: Pod, outcome: Outcome) -> Incident:
    verdict = outcome.verdict
    return Incident(
        pod,
        outcome.reason,
        outcome.message or verdict.meaning,
        pod.index if outcome.node is None else outcome.node,
        rank=outcome.rank,
        final=not verdict.retry,
        disruption=verdict.disruption,
        outcome=outcome,
    )


def _inferred(pod: Pod, ending: Ending) -> Incident:
    reason = REASON_OF_EXIT_CODE.get(ending.exit_code, Reason.CRASHED)
    verdict = VERDICTS[reason]
    message = f"{_how(ending)} and left no message"
    if last := ending.message.strip().splitlines()[-1:]:
        message = f"{_how(ending)}; the last line of its log is: {last[0][:500]}"
    return Incident(pod, reason, message, pod.index, final=not verdict.retry, disruption=verdict.disruption)


def _how(ending: Ending) -> str:
    number = ending.exit_code - 128
    if number in set(signal.Signals):
        return f"the container was killed by {signal.Signals(number).name}"
    return f"the container ended with exit code {ending.exit_code}"
