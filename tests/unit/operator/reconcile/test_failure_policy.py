"""runPolicy.failurePolicy: rules on reasons, exit codes and pod conditions decide what follows a failure."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError
from tests.support.pod_statuses import body, conditions, container, disruption_target, ended, terminated
from tests.support.simulated_cluster import SimulatedCluster, document

from finetune_operator.api import FineTuneJob
from finetune_operator.api.conditions import ConditionType
from finetune_operator.api.failure_policy import FailurePolicy
from finetune_operator.reconcile import TerminatedState, parse_pod
from finetune_operator.reconcile.failure_policy import apply_failure_policy
from finetune_operator.reconcile.pod_failure import Verdict, classify, vanished
from finetune_trainer.config import explain
from finetune_trainer.protocol.outcome import Reason

CRASHED = ended(terminated(42))
OUT_OF_MEMORY = ended(terminated(137, "OOMKilled"))
PREEMPTED = {
    "phase": "Running",
    "conditions": [*conditions(ready=True), disruption_target("PreemptionByScheduler", "preempting")],
    "containerStatuses": [container("trainer", {"running": {}})],
}


class Case(NamedTuple):
    """Rules, the status of the failed pod (None: it has vanished), and what follows."""

    name: str
    rules: list[dict[str, Any]]
    status: dict[str, Any] | None
    verdict: Verdict
    decided_by: str = ""


def codes(operator: str, *values: int) -> dict[str, Any]:
    return {"onExitCodes": {"operator": operator, "values": list(values)}}


CASES = [
    Case("no rules", [], CRASHED, Verdict.RETRY),
    Case("no rule matches", [{"action": "Fail", "onReasons": ["Hang"]}], CRASHED, Verdict.RETRY),
    Case(
        "out of memory is retried",
        [{"action": "Retry", "onReasons": ["OutOfMemory", "Hang"]}],
        OUT_OF_MEMORY,
        Verdict.RETRY,
        "failurePolicy rule 1: Retry on reason OutOfMemory",
    ),
    Case(
        "an exit code fails at once",
        [{"action": "Ignore", "onReasons": ["Hang"]}, {"action": "Fail", **codes("In", 41, 42)}],
        CRASHED,
        Verdict.FAIL,
        "failurePolicy rule 2: Fail on exit code 42",
    ),
    Case("another exit code", [{"action": "Fail", **codes("In", 41)}], CRASHED, Verdict.RETRY),
    Case(
        "all but some exit codes",
        [{"action": "Ignore", **codes("NotIn", 41)}],
        CRASHED,
        Verdict.IGNORE,
        "failurePolicy rule 1: Ignore on exit code 42",
    ),
    Case("none of some exit codes", [{"action": "Ignore", **codes("NotIn", 42)}], CRASHED, Verdict.RETRY),
    Case("exit code of a pod that has not exited", [{"action": "Fail", **codes("NotIn", 42)}], PREEMPTED, Verdict.DISRUPTION),
    Case(
        "the first match decides",
        [{"action": "Ignore", "onReasons": ["Crashed"]}, {"action": "Fail", **codes("In", 42)}],
        CRASHED,
        Verdict.IGNORE,
        "failurePolicy rule 1: Ignore on reason Crashed",
    ),
    Case(
        "disruptions count",
        [{"action": "Retry", "onReasons": ["Disrupted"]}],
        PREEMPTED,
        Verdict.RETRY,
        "failurePolicy rule 1: Retry on reason Disrupted",
    ),
    Case(
        "pod condition",
        [{"action": "Fail", "onPodConditions": [{"type": "DisruptionTarget"}]}],
        PREEMPTED,
        Verdict.FAIL,
        "failurePolicy rule 1: Fail on pod condition DisruptionTarget=True (PreemptionByScheduler)",
    ),
    Case(
        "one of several pod conditions",
        [
            {
                "action": "Ignore",
                "onPodConditions": [
                    {"type": "DisruptionTarget", "reason": "DeletionByTaintManager"},
                    {"type": "DisruptionTarget", "reason": "PreemptionByScheduler"},
                ],
            }
        ],
        PREEMPTED,
        Verdict.IGNORE,
        "failurePolicy rule 1: Ignore on pod condition DisruptionTarget=True (PreemptionByScheduler)",
    ),
    Case(
        "pod condition with another reason",
        [{"action": "Fail", "onPodConditions": [{"type": "DisruptionTarget", "reason": "DeletionByTaintManager"}]}],
        PREEMPTED,
        Verdict.DISRUPTION,
    ),
    Case(
        "pod condition with another status",
        [{"action": "Fail", "onPodConditions": [{"type": "DisruptionTarget", "status": "False"}]}],
        PREEMPTED,
        Verdict.DISRUPTION,
    ),
    Case(
        "vanished pod",
        [{"action": "Fail", **codes("NotIn", 42)}, {"action": "Retry", "onReasons": ["PodDeleted"]}],
        None,
        Verdict.RETRY,
        "failurePolicy rule 2: Retry on reason PodDeleted",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_first_matching_rule_decides(case: Case) -> None:
    default = vanished(1) if case.status is None else classify(parse_pod(body(case.status)))
    failure = apply_failure_policy(FailurePolicy.model_validate({"rules": case.rules}), default)
    assert failure.verdict is case.verdict
    assert failure.message == (f"{default.message} ({case.decided_by})" if case.decided_by else default.message)


def policy(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"failurePolicy": {"rules": list(rules)}}


def test_fail_ends_the_job_and_names_the_rule() -> None:
    cluster = SimulatedCluster(**policy({"action": "Fail", **codes("In", 42)})).run_all_pods()
    cluster.update_pod(1, phase="Failed", terminated=TerminatedState(42, "Error")).reconcile()
    assert cluster.condition(ConditionType.FAILED) == ("True", "Crashed")
    assert "(failurePolicy rule 1: Fail on exit code 42)" in cluster.message(ConditionType.FAILED)
    assert cluster.status.restarts.total == 0


def test_ignored_failures_never_exceed_backoff_limit() -> None:
    cluster = SimulatedCluster(backoffLimit=0, **policy({"action": "Ignore", "onReasons": ["Hang"]})).run_all_pods()
    for number in (1, 2, 3):
        cluster.advance(1000).fail(1, Reason.HANG).reconcile_until_stable()
        cluster.make_ready(1).reconcile_until_stable()
        restarts = cluster.status.restarts
        assert (restarts.ignored, restarts.failures, restarts.disruptions, restarts.total) == (number, 0, 0, number)
    assert cluster.status.phase == "Running"


def test_retry_overrides_the_trainers_verdict() -> None:
    rule = {"action": "Retry", "onReasons": ["InvalidConfiguration"]}
    cluster = SimulatedCluster(backoffLimit=1, **policy(rule)).run_all_pods()
    cluster.fail(1, Reason.INVALID_CONFIGURATION, message="the bucket is not there yet").reconcile_until_stable()
    assert (cluster.status.phase, cluster.status.restarts.failures) == ("Restarting", 1)
    cluster.make_ready(1).reconcile_until_stable()
    cluster.fail(1, Reason.INVALID_CONFIGURATION).reconcile_until_stable()
    assert cluster.condition(ConditionType.FAILED) == ("True", "BackoffLimitExceeded")


def test_rules_can_change_while_the_job_runs() -> None:
    cluster = SimulatedCluster().run_all_pods()
    cluster.set_run_policy(**policy({"action": "Fail", "onReasons": ["Crashed"]}))
    cluster.fail(1).reconcile()
    assert cluster.status.phase == "Failed"


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (
            {"action": "Fail", "onReasons": ["Oom"]},
            "spec.runPolicy.failurePolicy.rules[0].onReasons[0]: 'Oom' is no reason that the failure of a pod can have: "
            "use one of Crashed, ",
        ),
        (
            {"action": "Restart", "onReasons": ["Hang"]},
            "spec.runPolicy.failurePolicy.rules[0].action: 'Restart' is not one of 'Retry', 'Ignore' or 'Fail'",
        ),
    ],
)
def test_invalid_rule_is_explained(rule: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as error:
        FineTuneJob.model_validate(document(**policy(rule)))
    [explained] = explain(error.value)
    assert explained.startswith(sentence)
