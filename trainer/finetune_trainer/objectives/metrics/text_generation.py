"""Metrics of texts that a model wrote, from sums over texts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Sums = np.ndarray[Any, Any]


class Metric(Protocol):
    """A metric as sums; each instance imports the library that defines it, which takes a moment."""

    width: int
    """How many numbers the sums are."""

    def sums(self, written: Sequence[str], wanted: Sequence[str]) -> Sequence[float]:
        """What is kept of some texts [texts], [width]."""
        ...

    def scores(self, sums: Sums) -> dict[str, float]:
        """The metric of all texts, by its names."""
        ...


class BLEU:
    """Papineni et al. 2002, as sacrebleu's `corpus_bleu` computes it (Post 2018, arXiv:1804.08771), between 0 and 100."""

    width = 10

    def __init__(self) -> None:
        from sacrebleu.metrics.bleu import BLEU as Library

        self._library = Library(force=True)  # without advice on texts that look tokenized

    def sums(self, written: Sequence[str], wanted: Sequence[str]) -> Sequence[float]:
        """Matches and n-grams for n from 1 to 4, then words written and words wanted."""
        if not written:
            return [0.0] * self.width
        found = self._library.corpus_score(list(written), [list(wanted)])
        return [*found.counts, *found.totals, found.sys_len, found.ref_len]

    def scores(self, sums: Sums) -> dict[str, float]:
        """`bleu`."""
        counts = [int(number) for number in sums]
        found = self._library.compute_bleu(
            counts[:4], counts[4:8], counts[8], counts[9], smooth_method=self._library.smooth_method
        )
        return {"bleu": found.score}


class ROUGE:
    """F1 of ROUGE-1, -2 and -L (Lin 2004), as rouge_score computes it: the mean over texts, between 0 and 1."""

    width = 4
    names = ("rouge1", "rouge2", "rougeL")

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._library = RougeScorer(list(self.names))

    def sums(self, written: Sequence[str], wanted: Sequence[str]) -> Sequence[float]:
        """The sum of each, then the number of texts."""
        pairs = zip(wanted, written, strict=True)
        found = [self._library.score(target, prediction) for target, prediction in pairs]
        return [*(sum(score[name].fmeasure for score in found) for name in self.names), len(found)]

    def scores(self, sums: Sums) -> dict[str, float]:
        """`rouge1`, `rouge2` and `rougeL`."""
        return {name: float(value / max(sums[-1], 1)) for name, value in zip(self.names, sums, strict=False)}


METRICS: dict[str, type[Metric]] = {"BLEU": BLEU, "ROUGE": ROUGE}
