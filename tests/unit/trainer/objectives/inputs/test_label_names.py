"""The order of labels, and what the outputs of a finished head stand for."""

from __future__ import annotations

from collections import Counter

import pytest
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig

from finetune_trainer.objectives.inputs.label_names import (
    LabelSet,
    SourceHead,
    in_source_order,
    validate_distinct,
    without_unknown,
)
from finetune_trainer.protocol.outcome import DataError

HEAD = SourceHead(["positive", "neutral", "negative"], is_named=True)


def labels(names: list[str], given: bool = False) -> LabelSet:
    made = LabelSet(names if given else [], "sequenceClassification")
    made.set_names(names)
    return made


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["negative", "neutral", "positive"], ["positive", "neutral", "negative"]),
        (["Negative", "NEUTRAL", "positive"], ["positive", "NEUTRAL", "Negative"]),
        (["negative", "positive"], ["negative", "positive"]),
        (["negative", "neutral", "positive", "mixed"], ["negative", "neutral", "positive", "mixed"]),
        (["NEUTRAL", "neutral", "negative"], ["NEUTRAL", "neutral", "negative"]),
    ],
)
def test_follows_the_order_of_a_head_for_the_same_labels(names: list[str], ordered: list[str]) -> None:
    assert in_source_order(names, HEAD) == ordered
    assert in_source_order(names, None) == names


def test_keeps_a_head_whose_outputs_are_the_labels() -> None:
    assert HEAD.mismatch(labels(["positive", "neutral", "negative"])) is None
    assert HEAD.mismatch(labels(["Positive", "neutral", "NEGATIVE"])) is None
    unnamed = SourceHead(["LABEL_0", "LABEL_1"], is_named=False)
    assert unnamed.mismatch(labels(["0", "1"])) is None
    assert unnamed.mismatch(labels(["bad", "good"], given=True)) is None
    assert SourceHead(["LABEL_0"], is_named=False).mismatch(labels([])) is None


@pytest.mark.parametrize(
    ("head", "names", "reason"),
    [
        (HEAD, ["negative", "neutral", "positive"], "its head is for the labels positive, neutral, negative, and this run has"),
        (HEAD, ["0", "1", "2"], "its head is for the labels positive, neutral, negative, and this run has 0, 1, 2"),
        (HEAD, ["bad", "good"], "its head has 3 outputs (positive, neutral, negative), and this run has 2 labels (bad, good)"),
        (HEAD, [], "its head has 3 outputs (positive, neutral, negative), and this run has a number to predict"),
        (SourceHead(["LABEL_0", "LABEL_1"], is_named=False), ["bad", "good"], "its head does not name its 2 outputs, and"),
    ],
)  # fmt: skip
def test_explains_why_a_head_does_not_fit(head: SourceHead, names: list[str], reason: str) -> None:
    assert str(head.mismatch(labels(names))).startswith(reason)


def test_reads_the_head_of_the_same_task_only() -> None:
    config = BertConfig(architectures=["BertForSequenceClassification"], id2label={0: "yes", 1: "no"})
    assert SourceHead.from_config(config, AutoModelForSequenceClassification) == SourceHead(["yes", "no"], is_named=True)
    assert SourceHead.from_config(config, AutoModelForTokenClassification) is None
    unnamed = SourceHead.from_config(BertConfig(num_labels=2), AutoModelForSequenceClassification)
    assert unnamed == SourceHead(["LABEL_0", "LABEL_1"], is_named=False)


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ("0 1 2 -1", "0 1 2"), ("yes no -1", "yes no"), ("1 2 -1", "1 2"),
        ("-1 1", "-1 1"), ("-2 -1 0 1 2", "-2 -1 0 1 2"), ("0 1 2", "0 1 2"),
    ],
)  # fmt: skip
def test_minus_one_means_no_label_beside_whole_numbers_and_names(names: str, kept: str) -> None:
    assert list(without_unknown(Counter(names.split()), "label", "objective.x.labels")) == kept.split()


def test_refuses_minus_one_where_it_may_be_a_class() -> None:
    with pytest.raises(DataError, match=r"column label has the labels -1, 0, 1, of which -1 may be a .* objective.x.labels"):
        without_unknown(Counter(["0", "1", "-1"]), "label", "objective.x.labels")


def test_refuses_a_column_of_texts_as_labels() -> None:
    texts = Counter(f"text {number}" for number in range(30))
    with pytest.raises(DataError, match=r"column label has 30 different labels in 30 rows, such as 'text 0': name the column"):
        validate_distinct(texts, 30, "label", "objective.x.labels")
    validate_distinct(texts, 60, "label", "objective.x.labels")
    validate_distinct(Counter("abc"), 3, "label", "objective.x.labels")
