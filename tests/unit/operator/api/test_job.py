"""What pydantic alone checks in a document, because CEL cannot."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.support.simulated_cluster import document

from finetune_operator.api import FineTuneJob
from finetune_operator.api.job import MAX_SPEC_CHARACTERS
from finetune_trainer.config import explain


def labels(count: int) -> dict[str, object]:
    """A document with this many labels of twenty characters."""
    body = document()
    names = [f"{number:020d}" for number in range(count)]
    body["spec"]["objective"] = {"type": "SequenceClassification", "sequenceClassification": {"labels": names}}
    return body


def test_document_that_does_not_fit_into_an_annotation_is_refused() -> None:
    FineTuneJob.model_validate(labels(MAX_SPEC_CHARACTERS // 25))
    with pytest.raises(ValidationError) as caught:
        FineTuneJob.model_validate(labels(MAX_SPEC_CHARACTERS // 24))
    [message] = explain(caught.value)
    assert message.startswith("spec: has 20")
    assert message.endswith(f"more than the {MAX_SPEC_CHARACTERS} that pods can get: shorten its longest texts or lists")
