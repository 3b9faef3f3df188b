"""Every rule of the document, judged in Python; tests/e2e/test_rules.py has an API server judge the same documents."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.support.rule_cases import CASES, TRANSITIONS
from tests.support.rule_cases.documents import Case, declared, job

from finetune_operator.api import FineTuneJob
from finetune_trainer.config import explain


def test_every_rule_has_a_case() -> None:
    # A task has the objective's own rules: one class, tried once.
    tried = {case.field for case in CASES}
    untried = [
        (field, rule["message"])
        for field, rule in declared()
        if "oldSelf" not in rule["rule"]
        and not any(case.field == field and rule["message"].startswith(case.sentence) for case in CASES)
        and not (field.startswith("spec.objective.tasks[0].") and field.replace(".tasks[0]", "") in tried)
    ]
    assert untried == []


def test_every_transition_rule_has_a_case() -> None:
    frozen = [field for field, rule in declared() if "oldSelf" in rule["rule"]]
    assert sorted(frozen) == sorted(f"spec.{field}" for field, _, _ in TRANSITIONS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_accepted(case: Case) -> None:
    FineTuneJob.model_validate(job(case.accepted))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(case: Case) -> None:
    with pytest.raises(ValidationError) as create_error:
        FineTuneJob.model_validate(job(case.refused))
    [sentence] = explain(create_error.value)
    field, _, advice = sentence.partition(": ")
    assert field == case.field
    assert case.sentence in advice
