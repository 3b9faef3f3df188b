"""Names of labels as data writes them."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.data.records.labels import is_binary, is_missing, label_name


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("positive", "positive"), ("  positive\n", "positive"), (1, "1"), (1.0, "1"), ("1.0", "1"), ("-1.0", "-1"),
        ("1.5", "1.5"), (True, "true"), ("007", "007"), ("v1.0", "v1.0"),
    ],
)  # fmt: skip
def test_names_equal_labels_alike(label: Any, name: str) -> None:
    assert label_name(label) == name


@pytest.mark.parametrize("label", [None, "", "  ", float("nan")])
def test_finds_missing_labels(label: Any) -> None:
    assert is_missing(label)


@pytest.mark.parametrize("label", [0, 0.0, False, "0", [], "-"])
def test_keeps_labels_that_look_empty(label: Any) -> None:
    assert not is_missing(label)


def test_tells_vectors_of_zeros_and_ones() -> None:
    assert all(map(is_binary, ([0, 1], [1.0, 0.0, 0.0], [True, False])))
    assert not any(map(is_binary, ([1], [0, 2], ["0", "1"], "01", [0.5, 1], None)))
