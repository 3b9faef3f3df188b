"""Classifies the failure of a pod: its reason, the pod that caused it, and what follows if no rule says otherwise.

The most certain evidence comes first: the trainer's own verdict that a retry cannot help, then why Kubernetes stopped the pod,
then the trainer's message, and last the exit code of its container.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import Enum

from pydantic import ValidationError

from finetune_operator import names
from finetune_operator.api.conditions import ConditionReason
from finetune_operator.reconcile.observed_containers import FailedContainer, ReasonMessage, TerminatedState
from finetune_operator.reconcile.observed_pod import Pod
from finetune_trainer.protocol.outcome import EXIT_POLICIES, REASON_OF_EXIT_CODE, ExitPolicy, Outcome, Reason

OUT_OF_MEMORY = (
    "the container was killed because it exceeded its memory limit: raise workers.resources.limits.memory, "
    "or lower training.microBatchSize or data.maxLength"
)
OUTCOME_MISSING = (
    "the container exited with code 0 without reporting that the run is complete: its image probably runs another program "
    "than the trainer; set workers.image to an image that is built from the trainer image"
)
MAX_LOG_CHARACTERS = 500  # of the last log line in a message

# Reasons and messages of the kubelet of Kubernetes 1.37 and of containerd's CRI service.
EVICTED = "Evicted"
# An eviction for the pod's own limit has one of these messages, and in contrast to one for pressure on the node's resources
# no DisruptionTarget condition.
DISK_LIMIT = re.compile(
    r'Usage of EmptyDir volume "(?P<volume>[^"]*)" exceeds the limit'
    r"|Container (?P<container>\S+) exceeded its local ephemeral storage limit"
    r"|Pod ephemeral local storage usage exceeds the total limit of containers"
)
DISK_LIMIT_FIELD = "workers.resources.limits.ephemeral-storage"
VOLUME_SIZE_FIELDS = {names.WORK_VOLUME: "workers.scratch.size", names.SHARED_MEMORY_VOLUME: "workers.sharedMemory"}
# Part of the message of an eviction for pressure if the pod uses more than it requested.
EXCEEDED_REQUEST = "has larger consumption of"
# The kubelet rejects a pod with these reasons because of the pod's own fields, on every node of the same configuration. Its
# other reasons, such as OutOfcpu, NodeAffinity, NodeShutdown or UnexpectedAdmissionError (a device plugin that is not up yet),
# follow from the state of the node at that moment.
OWN_REJECTIONS = frozenset({
    "AppArmor",
    "DeadlineExceeded",
    "EmptyPodSharedPoolError",
    "InitContainerRestartPolicyForbidden",
    "PodFeatureUnsupported",
    "PodLevelResourcesNotSupported",
    "PodOSNotSupported",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "SMTAlignmentError",
    "SupplementalGroupsPolicyNotSupported",
    "SysctlForbidden",
    "TopologyAffinityError",
})  # fmt: skip
# The runtime could not execute the container's command, for example because a file or a device is missing.
START_ERRORS = frozenset({"StartError", "ContainerCannotRun"})
# The kubelet, or containerd with exit code 255, found a container gone when it came back.
LOST_STATUSES = frozenset({"ContainerStatusUnknown", "Unknown"})
# CRI-O sets this exit code for such a container, without a reason of its own. No agent exits with it; init containers may.
UNKNOWN_EXIT_CODE = 255


class Verdict(Enum):
    """What follows the failure of a pod."""

    FAIL = "Fail"  # the job fails: a retry cannot help
    RETRY = "Retry"  # the pod is replaced, and the failure counts towards backoffLimit
    DISRUPTION = "Disruption"  # the pod is replaced; counts only beyond maxDisruptionsPerHour, as the cause is outside the run
    IGNORE = "Ignore"  # the pod is replaced, and nothing is counted


DEFAULT_VERDICTS: dict[ConditionReason, Verdict] = {
    ConditionReason.DISRUPTED: Verdict.DISRUPTION,
    ConditionReason.NODE_LOST: Verdict.DISRUPTION,
    ConditionReason.POD_DELETED: Verdict.DISRUPTION,
    ConditionReason.DISK_LIMIT_EXCEEDED: Verdict.RETRY,  # the replacement starts with an empty disk
    ConditionReason.POD_REJECTED: Verdict.RETRY,  # the replacement may run on another node
    ConditionReason.START_ERROR: Verdict.RETRY,
    ConditionReason.OUTCOME_MISSING: Verdict.RETRY,
    ConditionReason.INIT_CONTAINER_FAILED: Verdict.RETRY,
}
"""What follows the failures that the pod's status shows, if no rule says otherwise."""


@dataclass(frozen=True, slots=True)
class PodFailure:
    """Why a pod failed or is being deleted; `pod` is None if it no longer exists.

    `origin` is the index of the node that failed first; a failure of one node can terminate the pods of others.
    """

    pod: Pod | None
    reason: str
    message: str
    origin: int
    verdict: Verdict
    rank: int | None = None
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
    """The failure of a pod that failed or that another client deletes."""
    outcome = parse_outcome(pod)
    if outcome is not None and not outcome.exit_policy.retry:
        return _from_termination_message(pod, outcome)
    if pod.disruption is not None:
        return _from_pod_status(pod, pod.disruption, outcome)
    if pod.is_being_deleted:
        return _from_evidence(pod, ConditionReason.POD_DELETED, "the pod was deleted by another client", outcome)
    if _is_killed_for_memory(pod) and (outcome is None or outcome.reason is Reason.CRASHED):
        return PodFailure(pod, Reason.OUT_OF_MEMORY, OUT_OF_MEMORY, pod.index, Verdict.FAIL, outcome=outcome)
    if outcome is not None:
        return _from_termination_message(pod, outcome)
    if pod.terminated is not None:
        return _from_exit_code(pod, pod.terminated)
    if pod.failed_init_container is not None:
        return _from_init_container(pod, pod.failed_init_container)
    return _from_evidence(pod, ConditionReason.DISRUPTED, "the pod failed before its container started")


def vanished(index: int) -> PodFailure:
    """The failure of a pod that no longer exists."""
    reason = ConditionReason.POD_DELETED
    return PodFailure(None, reason, "the pod no longer exists", index, DEFAULT_VERDICTS[reason])


def default_verdict(exit_policy: ExitPolicy) -> Verdict:
    """What follows an exit of the trainer with this policy if no rule matches it."""
    if not exit_policy.retry:
        return Verdict.FAIL
    return Verdict.DISRUPTION if exit_policy.disruption else Verdict.RETRY


def _from_evidence(pod: Pod, reason: ConditionReason, message: str, outcome: Outcome | None = None) -> PodFailure:
    return PodFailure(pod, reason, message, pod.index, DEFAULT_VERDICTS[reason], outcome=outcome)


def _is_killed_for_memory(pod: Pod) -> bool:
    return pod.terminated is not None and pod.terminated.reason == "OOMKilled"


def _from_pod_status(pod: Pod, stopped: ReasonMessage, outcome: Outcome | None) -> PodFailure:
    """The failure of a pod that Kubernetes stopped or rejected; only what the pod's own fields cause is the run's failure."""
    message = f"{stopped.reason}: {stopped.message}".strip().rstrip(":. ")
    if stopped.reason == EVICTED and (limit := DISK_LIMIT.match(stopped.message)):
        message = f"the pod was evicted because it exceeded its own limit of disk space: {_disk_remedy(limit)} ({message})"
        return _from_evidence(pod, ConditionReason.DISK_LIMIT_EXCEEDED, message, outcome)
    if stopped.reason in OWN_REJECTIONS:
        message = f"the kubelet of {pod.node} rejected the pod because of its own fields: {message}"
        return _from_evidence(pod, ConditionReason.POD_REJECTED, message, outcome)
    if EXCEEDED_REQUEST in stopped.message:
        # The pod kept to its limits, and the same document runs on another node: its request only made it the first to go.
        message = f"{message}; raise workers.resources.requests to what the pod uses, so that others are evicted first"
    return _from_evidence(pod, ConditionReason.DISRUPTED, message, outcome)


def _disk_remedy(limit: re.Match[str]) -> str:
    volume, container = limit["volume"], limit["container"]
    if volume is not None:
        return f"raise {VOLUME_SIZE_FIELDS.get(volume, f'emptyDir.sizeLimit of the volume {volume}')}"
    if container in (None, names.CONTAINER):
        return f"raise {DISK_LIMIT_FIELD}"
    return f"raise the limit of ephemeral-storage of the sidecar {container}"


def _from_termination_message(pod: Pod, outcome: Outcome) -> PodFailure:
    return PodFailure(
        pod,
        outcome.reason,
        outcome.message or outcome.exit_policy.meaning,
        pod.index if outcome.node is None else outcome.node,
        default_verdict(outcome.exit_policy),
        rank=outcome.rank,
        outcome=outcome,
    )


def _from_exit_code(pod: Pod, terminated: TerminatedState) -> PodFailure:
    if terminated.reason in LOST_STATUSES or terminated.exit_code == UNKNOWN_EXIT_CODE:
        return _from_evidence(pod, ConditionReason.DISRUPTED, _describe_lost_status(pod, terminated))
    if terminated.exit_code == 0:
        return _from_evidence(pod, ConditionReason.OUTCOME_MISSING, OUTCOME_MISSING)
    if terminated.reason in START_ERRORS:
        message = f"the container could not be started: {terminated.message.strip()}".rstrip(": ")
        return _from_evidence(pod, ConditionReason.START_ERROR, message)
    reason = REASON_OF_EXIT_CODE.get(terminated.exit_code, Reason.CRASHED)
    message = _with_last_log_line(f"the container {_describe_exit_code(terminated.exit_code)}", terminated)
    return PodFailure(pod, reason, message, pod.index, default_verdict(EXIT_POLICIES[reason]))


def _from_init_container(pod: Pod, failed: FailedContainer) -> PodFailure:
    terminated = failed.terminated
    if terminated.reason in LOST_STATUSES:
        return _from_evidence(pod, ConditionReason.DISRUPTED, _describe_lost_status(pod, terminated))
    cause = f"exceeded its memory limit ({terminated.reason})" if terminated.reason == "OOMKilled" else ""
    message = f"the init container {failed.name} {cause or _describe_exit_code(terminated.exit_code)}"
    return _from_evidence(pod, ConditionReason.INIT_CONTAINER_FAILED, _with_last_log_line(message, terminated))


def _describe_lost_status(pod: Pod, terminated: TerminatedState) -> str:
    details = f"exit code {terminated.exit_code}, reason {terminated.reason or 'none'}"
    return f"the end of the container was not recorded ({details}): node {pod.node} or its container runtime was restarted"


def _with_last_log_line(message: str, terminated: TerminatedState) -> str:
    log_lines = terminated.message.strip().splitlines()
    if not log_lines:
        return f"{message} without a termination message"
    return f"{message}; the last line of its log is: {log_lines[-1][:MAX_LOG_CHARACTERS]}"


def _describe_exit_code(exit_code: int) -> str:
    number = exit_code - 128
    if number in set(signal.Signals):
        return f"was killed by {signal.Signals(number).name}"
    return f"terminated with exit code {exit_code}"
