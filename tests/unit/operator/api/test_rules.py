"""Every rule of the document, evaluated in Python; tests/e2e/test_rules.py submits the same documents to an API server."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.support.rule_cases import CASES
from tests.support.rule_cases.documents import Case, declared, job

from finetune_operator.api import FineTuneJob
from finetune_trainer.config import explain


def test_every_rule_has_a_case() -> None:
    # The options of a task are the same classes as those of the objective, so their rules need no cases of their own.
    tested_fields = {case.field for case in CASES}
    untested = []
    for field, rule in declared():
        message = rule["message"]
        is_transition = "oldSelf" in rule["rule"]
        has_case = any(case.field == field and message.startswith(case.sentence) for case in CASES)
        is_tested_in_objective = (
            field.startswith("spec.objective.tasks[0].") and field.replace(".tasks[0]", "") in tested_fields
        )
        if not is_transition and not has_case and not is_tested_in_objective:
            untested.append((field, message))
    assert untested == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_accepts_a_valid_document(case: Case) -> None:
    FineTuneJob.model_validate(job(case.accepted))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rejects_an_invalid_document(case: Case) -> None:
    with pytest.raises(ValidationError) as error:
        FineTuneJob.model_validate(job(case.refused))
    [sentence] = explain(error.value)
    field, _, advice = sentence.partition(": ")
    assert field == case.field
    assert case.sentence in advice
