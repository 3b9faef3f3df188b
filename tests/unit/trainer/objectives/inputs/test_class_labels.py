"""Labels of rows become targets: missing ones, multi-hot vectors, and numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from finetune_trainer.config.objectives.sequence_classification import SequenceClassificationConfig
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.inputs.class_labels import ClassLabels
from finetune_trainer.objectives.inputs.label_names import SourceHead
from finetune_trainer.protocol.outcome import ConfigurationError, DataError


def rows(values: list[Any]) -> list[Row]:
    return [Row({"label": value}, f"a.jsonl:{number}", {"label": "label"}) for number, value in enumerate(values, start=1)]


def encode(problem: str, values: list[Any], given: list[str] | None = None, head: SourceHead | None = None) -> Any:
    """The labels, and the target of each row."""
    config = SequenceClassificationConfig.model_validate({"problem": problem, "labels": given or []})
    labels = ClassLabels(config, "sequenceClassification")
    labels.source_head = head
    labels.set_statistics(labels.collect_statistics(lambda: rows(values)))
    return labels.names, [labels.encode(row) for row in rows(values)]


@pytest.mark.parametrize(
    ("problem", "values", "names", "targets"),
    [
        ("SingleLabel", [0, 1, -1, 2, None, ""], ["0", "1", "2"], [[0], [1], None, [2], None, None]),
        ("SingleLabel", ["no", " yes ", "-1", "yes"], ["no", "yes"], [[0], [1], None, [1]]),
        ("SingleLabel", [1.0, 2.0, math.nan, 10.0], ["1", "2", "10"], [[0], [1], None, [2]]),
        ("SingleLabel", ["1.0", "2", "-1.0", "3"], ["1", "2", "3"], [[0], [1], None, [2]]),
        ("SingleLabel", [True, "false", False], ["false", "true"], [[1], [0], [0]]),
        ("SingleLabel", [-1, 1], ["-1", "1"], [[0], [1]]),
        ("Regression", [1, "2.5", None, math.nan, "", -1], [], [[1], [2.5], None, None, None, [-1]]),
        ("MultiLabel", [["a", "b"], [], None, ["b"]], ["a", "b"], [[1, 1], [0, 0], None, [0, 1]]),
        ("MultiLabel", [[3, 5], [5.0], [-1]], ["3", "5"], [[1, 1], [0, 1], None]),
        ("MultiLabel", [[1.0, 0.0, 0.0], None, [0.0, 1.0, 1.0]], ["0", "1", "2"], [[1, 0, 0], None, [0, 1, 1]]),
        ("MultiLabel", [[0, 1, 1], [1, 0, 0]], ["0", "1", "2"], [[0, 1, 1], [1, 0, 0]]),
        ("MultiLabel", [[True, False], [False, True]], ["0", "1"], [[1, 0], [0, 1]]),
        ("MultiLabel", [[0], [1], [0, 1]], ["0", "1"], [[1, 0], [0, 1], [1, 1]]),
    ],
)  # fmt: skip
def test_encodes_labels(problem: str, values: list[Any], names: list[str], targets: list[Any]) -> None:
    assert encode(problem, values) == (names, targets)


def test_given_labels_say_whether_minus_one_is_a_class() -> None:
    assert encode("SingleLabel", [0, -1, 1], ["-1", "0", "1"])[1] == [[1], [0], [2]]
    assert encode("SingleLabel", [0, -1, 1], ["0", "1"])[1] == [[0], None, [1]]
    assert encode("SingleLabel", [1, 2.0], ["1.0", "2.0"]) == (["1.0", "2.0"], [[0], [1]])


def test_names_multi_hot_labels() -> None:
    vectors = [[0, 1], [1, 0]]
    assert encode("MultiLabel", vectors, ["toxic", "rude"]) == (["toxic", "rude"], vectors)
    head = SourceHead(["toxic", "rude", "sad"], is_named=True)
    assert encode("MultiLabel", [[0, 1, 1]], head=head) == (["toxic", "rude", "sad"], [[0, 1, 1]])
    assert encode("MultiLabel", vectors, ["0", "1"])[1] == [[1, 1], [1, 1]], "lists of the labels 0 and 1"


@pytest.mark.parametrize(
    ("problem", "values", "message"),
    [
        ("MultiLabel", [[0, 1], [1, 0]], "a.jsonl:1: the labels of all rows are [0, 1] or [1, 0], either multi-hot vectors or"),
        ("MultiLabel", [[1.0, 0.0], [1.0, 0.0, 0.0]], "a.jsonl:1: the label is a multi-hot vector, and that of a.jsonl:2"),
        ("MultiLabel", [[0, 0, 1], ["a"]], "a.jsonl:1: the label is a multi-hot vector, and that of a.jsonl:2 is none of the"),
        ("MultiLabel", [[0.3, 0.7]], "a.jsonl:1: column label has 0.3 in its list, neither a label nor the 0 or 1 of a"),
        ("SingleLabel", [0, 1, -1], "spec.data.train: column label has the labels -1, 0, 1, of which -1 may be a class or"),
        ("SingleLabel", ["a", None, "a"], "spec.data.train: every row has the same label 'a', so there is nothing to classify"),
        ("SingleLabel", list(range(30)), "spec.data.train: column label has 30 different labels in 30 rows, such as '0': name"),
        ("Regression", [1.0, True], "a.jsonl:2: column label is True, and Regression needs a finite number: correct the row"),
    ],
)  # fmt: skip
def test_refuses_labels_that_may_mean_something_else(problem: str, values: list[Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        encode(problem, values)
    assert str(raised.value).startswith(message)


def test_refuses_another_number_of_names_than_the_vectors_have() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.objective.sequenceClassification.labels: there are 3 labels, and"):
        encode("MultiLabel", [[0, 1], [1, 0]], ["a", "b", "c"])
