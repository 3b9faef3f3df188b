"""The preview as sentences."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.previews import preview

from finetune_trainer.preview.facts import check_facts, run_facts, split_facts, token_facts
from finetune_trainer.preview.report import CollatedTokens, SpecialToken


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"is_estimate": False}, "938: 3.00 epochs of 312.5 steps"),
        ({}, "about 938: 3.00 epochs of 312.5 steps"),
        ({"is_lower_bound": True}, "at least 938: 3.00 epochs of 312.5 steps"),
        ({"is_fixed": True}, "938: about 3.00 epochs of 312.5 steps"),
    ],
)
def test_only_numbers_of_a_sample_are_estimates(changes: dict[str, Any], sentence: str) -> None:
    run = preview().run.model_copy(update=changes)
    assert next(run_facts(preview(run=run))).sentence == sentence


def test_lost_rows_are_counted_by_kind() -> None:
    train = preview().train.model_copy(update={"empty_documents": 5, "unanswered_documents": 20})
    sentences = [fact.sentence for fact in split_facts(train, preview())]
    assert sentences[1:5] == ["3 (0.1%) truncated", "1 (0.1%) dropped", "5 (0.2%) empty", "20 (1.0%) unanswered"]


def test_padding_is_described_where_sequences_are_not_packed() -> None:
    shown = preview(packing=False)
    sentences = {fact.subject: fact.sentence for fact in split_facts(shown.train, shown)}
    assert "packing" not in sentences
    assert sentences["padding"].startswith("6.2%")


def test_leakage_is_checked_where_there_is_evaluation_data() -> None:
    shown = preview(evaluation=preview().train)
    sentences = {fact.subject: fact.sentence for fact in check_facts(shown)}
    assert sentences["leakage"] == "nothing found"
    assert sentences["personalData"] == "not checked, as data.checks.personalData is Ignore"
    assert "balance" not in sentences


def test_a_classification_trains_on_no_tokens() -> None:
    cls = SpecialToken(token="[CLS]", id=1, names=["cls"], count=7, trained=0)
    collated = CollatedTokens(sequences=7, tokens=70, trained=0, special_tokens=[cls])
    assert [fact.sentence for fact in token_facts(collated)] == ["[CLS] (cls): 7 seen"]
