"""runPolicy.failurePolicy: the first rule that matches a failure decides what follows."""

from __future__ import annotations

from dataclasses import replace

from finetune_operator.api.failure_policy import ExitCodeRequirement, FailurePolicy, FailureRule, PodConditionPattern
from finetune_operator.reconcile.observed_pod import PodCondition
from finetune_operator.reconcile.pod_failure import PodFailure, Verdict


def apply_failure_policy(policy: FailurePolicy, pod_failure: PodFailure) -> PodFailure:
    """The failure with the verdict of the first rule that matches it, and a message that names the rule.

    Without a match the failure is returned as it is.
    """
    for number, rule in enumerate(policy.failure_rules, start=1):
        evidence = _match(rule, pod_failure)
        if evidence is not None:
            message = f"{pod_failure.message} (failurePolicy rule {number}: {rule.action} on {evidence})"
            return replace(pod_failure, verdict=Verdict(rule.action), message=message)
    return pod_failure


def _match(rule: FailureRule, pod_failure: PodFailure) -> str | None:
    """What the rule has matched; None if it does not match."""
    if rule.on_reasons is not None:
        return f"reason {pod_failure.reason}" if str(pod_failure.reason) in rule.on_reasons else None
    if rule.on_exit_codes is not None:
        return _match_exit_code(rule.on_exit_codes, pod_failure)
    return _match_conditions(rule.on_pod_conditions or [], pod_failure)


def _match_exit_code(requirement: ExitCodeRequirement, pod_failure: PodFailure) -> str | None:
    """A container that has not exited, or exited with 0, has no exit code to match, as in batch/v1."""
    terminated = pod_failure.pod.terminated if pod_failure.pod is not None else None
    if terminated is None or terminated.exit_code == 0:
        return None
    is_listed = terminated.exit_code in requirement.values
    return f"exit code {terminated.exit_code}" if is_listed == (requirement.operator == "In") else None


def _match_conditions(patterns: list[PodConditionPattern], pod_failure: PodFailure) -> str | None:
    for condition in pod_failure.pod.conditions if pod_failure.pod is not None else ():
        if any(_matches(pattern, condition) for pattern in patterns):
            reason = f" ({condition.reason})" if condition.reason else ""
            return f"pod condition {condition.type}={condition.status}{reason}"
    return None


def _matches(pattern: PodConditionPattern, condition: PodCondition) -> bool:
    return (
        (pattern.type, pattern.status) == (condition.type, condition.status)
        and pattern.reason in (None, condition.reason)
    )  # fmt: skip
