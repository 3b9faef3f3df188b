"""runPolicy.failurePolicy: what follows the failure of a pod, in the terms of batch/v1's podFailurePolicy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from finetune_operator.api.conditions import POD_FAILURE_REASONS
from finetune_trainer.config.base import Rule, Section
from finetune_trainer.protocol.outcome import Reason

MAX_RULES = 20

FAILURE_REASONS = tuple(str(reason) for reason in (*Reason, *POD_FAILURE_REASONS) if reason is not Reason.COMPLETE)
"""Every reason that the failure of a pod can have: the trainer's, and those that the operator finds in the pod's status."""


def _require_failure_reason(reason: str) -> str:
    if reason not in FAILURE_REASONS:
        known = ", ".join(FAILURE_REASONS)
        message = f"{reason!r} is no reason that the failure of a pod can have: use one of {known}"
        raise PydanticCustomError("rule", "{message}", {"message": message})
    return reason


FailureReason = Annotated[
    str, AfterValidator(_require_failure_reason), Field(json_schema_extra={"enum": list(FAILURE_REASONS)})
]
FailureAction = Literal["Retry", "Ignore", "Fail"]


class ExitCodeRequirement(Section):
    """A requirement on the exit code of the trainer container."""

    operator: Literal["In", "NotIn"] = Field(
        description="In: the exit code is one of values. NotIn: it is none of them. A container that exited with 0, or has not "
        "exited, satisfies neither."
    )
    values: list[Annotated[int, Field(ge=1, le=255)]] = Field(min_length=1, max_length=255)


class PodConditionPattern(Section):
    """A pattern of a condition in the pod's status."""

    type: str = Field(min_length=1, max_length=316, description="Type of the condition, such as DisruptionTarget.")
    status: Literal["True", "False", "Unknown"] = "True"
    reason: str | None = Field(
        None, min_length=1, max_length=1024, description="Reason of the condition, such as PreemptionByScheduler; absent: any."
    )


class FailureRule(Section):
    """What follows a failure that the rule matches."""

    action: FailureAction = Field(
        description="Retry: the pod is replaced, and the failure counts towards backoffLimit. Ignore: the pod is replaced, and "
        "nothing is counted. Fail: the job fails at once."
    )
    on_reasons: list[FailureReason] | None = Field(
        None, min_length=1, max_length=len(FAILURE_REASONS), description="Matches a failure with one of these reasons."
    )
    on_exit_codes: ExitCodeRequirement | None = Field(
        None, description="Matches a failure by the exit code of the trainer container."
    )
    on_pod_conditions: list[PodConditionPattern] | None = Field(
        None, min_length=1, max_length=20, description="Matches a pod that has a condition with one of these patterns."
    )

    # One matcher a rule, as in batch/v1: with two, a reader could not tell whether both or either must match. Two rules with
    # the same action express "or".
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.onReasons), has(self.onExitCodes), has(self.onPodConditions)].filter(given, given).size() == 1",
            "a rule needs exactly one of onReasons, onExitCodes and onPodConditions: add one, or split the rule",
        ),
    )


class FailurePolicy(Section):
    """Which failures are retried, ignored or final, where it differs from the defaults."""

    failure_rules: list[FailureRule] = Field(
        default_factory=list,
        alias="rules",
        max_length=MAX_RULES,
        description="The first rule that matches a failure decides; without a match the default of its reason applies.",
    )
