"""How well an answer agrees with those that are right, as SQuAD's official script has it (Rajpurkar et al. 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def words(text: str) -> list[str]:
    """What is compared: words in lower case without punctuation and articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def agreement(answer: str, right: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 over words, each with the right answer that suits it best; no answer is right where there is none."""
    given = words(answer)
    wanted = [found for one in right if (found := words(one))] or [[]]
    return float(given in wanted), max(_f1(given, one) for one in wanted)


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (Counter(given) & Counter(wanted)).total() / (len(given) + len(wanted))
