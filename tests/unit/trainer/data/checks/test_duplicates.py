"""Rows that are the same, and rows that are nearly so."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from finetune_trainer.data.checks import duplicates, near_duplicates
from finetune_trainer.data.checks.near_duplicates import SIMILAR, WORDS, Sketches
from finetune_trainer.data.records.digests import row_digest, text_digest, value_digest
from finetune_trainer.data.records.row import Row

WORD = [f"word{number}" for number in range(2000)]


def record(**values: object) -> Row:
    return Row(values, "here", {name: name for name in values})


def text(seed: int, words: int = 200) -> list[str]:
    return random.Random(seed).choices(WORD, k=words)


def changed(words: list[str], every: int) -> str:
    return " ".join("other" if number % every == every // 2 else word for number, word in enumerate(words))


def jaccard(one: str, other: str) -> float:
    first, second = (
        {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)} for words in (one.split(), other.split())
    )
    return len(first & second) / len(first | second)


def sketches(*texts: str, most: int = 100) -> Sketches:
    made = Sketches(most)
    for place, one in enumerate(texts):
        made.add(10 * place, one)
    return made


def similar(train: Sketches, evaluation: Sketches) -> tuple[list[int], list[int]]:
    index = near_duplicates.index_of(evaluation, lambda: None)
    return near_duplicates.similar(train, index, lambda: None)


def test_rows_are_compared_by_all_they_hold_and_texts_without_labels() -> None:
    one, other = record(text="a", label=1), record(text="a", label=2)
    assert row_digest(one) != row_digest(other)
    assert text_digest(one) == text_digest(other) != text_digest(record(text="b", label=1))
    assert row_digest(one) == row_digest(record(label=1, text="a")), "whatever the order of columns"
    # A new version must not choose others for evaluation under a run that resumes.
    assert value_digest("a") == int(hashlib.blake2b(b"a", digest_size=8).hexdigest(), 16)


def test_all_but_the_first_are_repeated() -> None:
    assert duplicates.repeated(np.array([5, 3, 5, 5, 3, 9], np.uint64)).tolist() == [False, False, True, True, True, False]


@pytest.mark.parametrize(("every", "found"), [(500, True), (100, True), (20, False), (7, False)])
def test_texts_are_alike_when_they_share_four_fifths_of_their_phrases(every: int, found: bool) -> None:
    words = text(1)
    one, other = " ".join(words), changed(words, every)
    assert (jaccard(one, other) >= SIMILAR) == found
    assert similar(sketches(one, " ".join(text(2)), other), sketches()) == ([], [20] if found else [])
    assert similar(sketches(other), sketches(one)) == ([0] if found else [], [])


def test_only_so_many_rows_are_compared() -> None:
    same = [" ".join(text(1))] * 5
    assert similar(sketches(*same, most=3), sketches()) == ([], [10, 20])
    assert similar(sketches(*same, most=0), sketches(*same)) == ([], [])


def test_rows_without_words_are_like_none() -> None:
    assert len(sketches("", " \n")) == 0


def test_short_texts_are_compared_whole() -> None:
    assert similar(sketches("yes", "no", "yes"), sketches("no")) == ([10], [20])
