"""Exact and near duplicates, and leakage."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from finetune_trainer.data.checks import duplicates, leakage, near_duplicates
from finetune_trainer.data.checks.sketches import PHRASE_WORDS, SIMILARITY_THRESHOLD, Sketches
from finetune_trainer.data.records.digests import row_digest, text_digest, value_digest
from finetune_trainer.data.records.row import Row

WORD = [f"word{number}" for number in range(2000)]


def row(**values: object) -> Row:
    return Row(values, "here", {name: name for name in values})


def text(seed: int, words: int = 200) -> list[str]:
    return random.Random(seed).choices(WORD, k=words)


def changed(words: list[str], every: int) -> str:
    return " ".join("other" if number % every == every // 2 else word for number, word in enumerate(words))


def jaccard(one: str, other: str) -> float:
    first, second = phrases(one.split()), phrases(other.split())
    return len(first & second) / len(first | second)


def phrases(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + PHRASE_WORDS]) for start in range(len(words) - PHRASE_WORDS + 1)}


def sketches(*texts: str, max_rows: int = 100) -> Sketches:
    result = Sketches(max_rows)
    for index, text in enumerate(texts):
        result.add(10 * index, text)
    return result


def similar(train: Sketches, evaluation: Sketches) -> tuple[list[int], list[int]]:
    leaked = leakage.similar_to_any(train, evaluation)
    return leaked, near_duplicates.similar_to_earlier(train)


def test_row_digests_cover_all_values_and_text_digests_only_texts() -> None:
    one, other = row(text="a", label=1), row(text="a", label=2)
    assert row_digest(one) != row_digest(other)
    assert text_digest(one) == text_digest(other) != text_digest(row(text="b", label=1))
    assert row_digest(one) == row_digest(row(label=1, text="a")), "independent of the order of columns"
    # The digest is pinned: a new version must not hold out other rows when a run resumes.
    assert value_digest("a") == int(hashlib.blake2b(b"a", digest_size=8).hexdigest(), 16)


def test_marks_all_but_the_first_as_repeated() -> None:
    assert duplicates.repeated(np.array([5, 3, 5, 5, 3, 9], np.uint64)).tolist() == [False, False, True, True, True, False]


@pytest.mark.parametrize(("every", "is_similar"), [(500, True), (100, True), (20, False), (7, False)])
def test_texts_are_similar_if_they_share_four_fifths_of_their_phrases(every: int, is_similar: bool) -> None:
    words = text(1)
    one, other = " ".join(words), changed(words, every)
    assert (jaccard(one, other) >= SIMILARITY_THRESHOLD) == is_similar
    assert similar(sketches(one, " ".join(text(2)), other), sketches()) == ([], [20] if is_similar else [])
    assert similar(sketches(other), sketches(one)) == ([0] if is_similar else [], [])


def test_compares_only_the_first_rows() -> None:
    same = [" ".join(text(1))] * 5
    assert similar(sketches(*same, max_rows=3), sketches()) == ([], [10, 20])
    assert similar(sketches(*same, max_rows=0), sketches(*same)) == ([], [])


def test_texts_without_words_have_no_sketch() -> None:
    assert len(sketches("", " \n")) == 0


def test_short_texts_are_compared_whole() -> None:
    assert similar(sketches("yes", "no", "yes"), sketches("no")) == ([10], [20])
