"""Changes of an existing job, evaluated in Python; tests/e2e/test_rules.py submits the same ones to an API server."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.rule_cases import TRANSITIONS
from tests.support.rule_cases.documents import declared, job
from tests.support.rule_cases.transitions import Transition

from finetune_operator.api import FineTuneJob
from finetune_operator.api.transition_rules import MUTABLE_FIELDS, transition_errors
from finetune_trainer.checkpoint.run_identity import identity

SUSPENDED = {"spec.runPolicy.suspend": True}


def suspended(document: FineTuneJob) -> FineTuneJob:
    spec = document.spec
    policy = spec.run_policy.model_copy(update={"suspend": True})
    return document.model_copy(update={"spec": spec.model_copy(update={"run_policy": policy})})


def refused_fields(old: FineTuneJob, new: FineTuneJob) -> set[str]:
    return {sentence.partition(": ")[0] for sentence in transition_errors(old, new)}


def test_every_transition_rule_has_a_case() -> None:
    fields = {field for field, rule in declared() if "oldSelf" in rule["rule"]}
    assert fields == {transition.field for transition in TRANSITIONS}


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: transition.name)
def test_suspended_job_refuses_only_changes_of_its_identity(transition: Transition) -> None:
    old, new = (FineTuneJob.model_validate(job(changes)) for changes in (transition.before, transition.after))
    assert refused_fields(old, new) == {transition.field}
    assert refused_fields(suspended(old), suspended(new)) == (set() if transition.is_mutable else {transition.field})
    if transition.field not in ("spec.checkpoint.storage", "spec.managedBy"):  # not part of what the trainer compares
        assert (identity(old.spec) == identity(new.spec)) == transition.is_mutable


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, SUSPENDED, set()),
        (SUSPENDED, {}, set()),
        ({}, SUSPENDED | {"spec.workers.image": "mine:2"}, set()),
        (SUSPENDED, {"spec.workers.image": "mine:2"}, set()),
        ({}, {"spec.runPolicy.backoffLimit": 9}, set()),
        (SUSPENDED, SUSPENDED | {"spec.training.seed": 1}, {"spec.training.seed"}),
        ({}, {"spec.training.seed": 1, "spec.workers.image": "a"}, {"spec.training.seed", "spec.workers"}),
    ],
)
def test_change_in_the_request_that_suspends_or_resumes(before: Any, after: Any, expected: set[str]) -> None:
    old, new = (FineTuneJob.model_validate(job(changes)) for changes in (before, after))
    assert refused_fields(old, new) == expected


ELASTIC = {"spec.workers.nodes": 4, "spec.workers.minNodes": 1}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (ELASTIC, ELASTIC | {"spec.workers.nodes": 2}, set()),
        (ELASTIC, ELASTIC | {"spec.workers.nodes": 8}, set()),
        ({}, ELASTIC, {"spec.workers"}),
        (ELASTIC, ELASTIC | {"spec.workers.nodes": 2, "spec.workers.minNodes": 2}, {"spec.workers"}),
        (ELASTIC, ELASTIC | {"spec.workers.nodes": 2, "spec.workers.image": "mine:2"}, {"spec.workers"}),
    ],
)
def test_number_of_nodes_of_an_elastic_job_may_change_while_it_runs(before: Any, after: Any, expected: set[str]) -> None:
    old, new = (FineTuneJob.model_validate(job(changes)) for changes in (before, after))
    assert refused_fields(old, new) == expected


def test_allowed_numbers_of_nodes_divide_the_batch() -> None:
    batch = {"spec.training.batchSize": 24, "spec.training.microBatchSize": 1, "spec.workers.processesPerNode": 2}
    document = FineTuneJob.model_validate(job(batch | {"spec.workers.nodes": 12, "spec.workers.minNodes": 2}))
    assert document.spec.allowed_nodes == (2, 3, 4, 6, 12)
    fixed = FineTuneJob.model_validate(job(batch | {"spec.workers.nodes": 12}))
    assert fixed.spec.allowed_nodes == (12,)
    assert document.revision != fixed.revision
    scaled = FineTuneJob.model_validate(job(batch | {"spec.workers.nodes": 6, "spec.workers.minNodes": 2}))
    assert document.revision == scaled.revision, "the pods of a job that was scaled are kept"


def test_changed_nodes_must_divide_the_batch() -> None:
    with pytest.raises(ValueError, match=r"batchSize must be a multiple of microBatchSize x workers\.nodes"):
        FineTuneJob.model_validate(job({"spec.training.batchSize": 8, "spec.workers.nodes": 3}))


def test_sentence_names_the_fields_and_the_fix() -> None:
    old, new = (FineTuneJob.model_validate(job(changes)) for changes in ({}, {"spec.checkpoint.keepLast": 3}))
    assert transition_errors(old, new) == [
        "spec.checkpoint: credentials, everySteps, everyMinutes and keepLast can change only while the job is suspended: set "
        "runPolicy.suspend: true first"
    ]


def test_every_mutable_field_has_a_case() -> None:
    def values(document: Any, parts: list[str]) -> Any:
        if isinstance(document, list):
            return [values(item, parts) for item in document]
        return values(document.get(parts[0], {}), parts[1:]) if parts else document

    for section, paths in MUTABLE_FIELDS.items():
        for path in paths:
            changed = []
            for transition in TRANSITIONS:
                old, new = job(transition.before)["spec"], job(transition.after)["spec"]
                parts = [section, *path.split(".")]
                changed.append(transition.is_mutable and values(old, parts) != values(new, parts))
            assert any(changed), f"spec.{section}.{path}"
