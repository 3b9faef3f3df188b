"""Agreement of an answer with the correct ones, as SQuAD's official script computes it (Rajpurkar et al. 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from finetune_trainer.objectives.metrics.words import separate_unspaced

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalized_words(text: str) -> list[str]:
    """The words that are compared: in lower case, without punctuation and articles.

    Each Chinese or Japanese character is a word, as in MLQA's script (Lewis et al. 2020, arXiv:1910.07475).
    """
    return separate_unspaced(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION))).split()


def exact_match_and_f1(answer: str, correct: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 over words, each with the most similar correct answer; none may be correct, and then "" is."""
    answer_words = normalized_words(answer)
    correct_words = [words for text in correct if (words := normalized_words(text))]
    if not correct_words:
        correct_words = [[]]
    return float(answer_words in correct_words), max(_f1(answer_words, words) for words in correct_words)


def _f1(answer: list[str], correct: list[str]) -> float:
    if not answer or not correct:
        return float(answer == correct)
    return 2 * (Counter(answer) & Counter(correct)).total() / (len(answer) + len(correct))
