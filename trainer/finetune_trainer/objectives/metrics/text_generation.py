"""Metrics of generated texts, from sums over texts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from finetune_trainer.objectives.base import Statistics


class TextMetric(Protocol):
    """A metric that is computed from sums. Creating one imports its library, which takes a moment."""

    width: int
    """How many sums there are."""

    def sums(self, generated: Sequence[str], references: Sequence[str]) -> Sequence[float]:
        """The sums over some texts, [width]."""
        ...

    def scores(self, sums: Statistics) -> dict[str, float]:
        """The metric of all texts, by name."""
        ...


class BLEU:
    """Papineni et al. 2002, as sacrebleu's `corpus_bleu` computes it (Post 2018, arXiv:1804.08771), between 0 and 100."""

    width = 10

    def __init__(self) -> None:
        from sacrebleu.metrics.bleu import BLEU as Library

        self._library = Library(force=True)  # without advice on texts that look tokenized

    def sums(self, generated: Sequence[str], references: Sequence[str]) -> Sequence[float]:
        """Matches and n-grams for n from 1 to 4, then generated words and reference words."""
        if not generated:
            return [0.0] * self.width
        score = self._library.corpus_score(list(generated), [list(references)])
        return [*score.counts, *score.totals, score.sys_len, score.ref_len]

    def scores(self, sums: Statistics) -> dict[str, float]:
        """`bleu`."""
        counts = [int(number) for number in sums]
        score = self._library.compute_bleu(
            counts[:4], counts[4:8], counts[8], counts[9], smooth_method=self._library.smooth_method
        )
        return {"bleu": score.score}


class ROUGE:
    """F1 of ROUGE-1, -2 and -L (Lin 2004), as rouge_score computes it: the mean over texts, between 0 and 1."""

    width = 4
    names = ("rouge1", "rouge2", "rougeL")

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._library = RougeScorer(list(self.names))

    def sums(self, generated: Sequence[str], references: Sequence[str]) -> Sequence[float]:
        """The sum of each F1, then the number of texts."""
        scores = [self._library.score(*pair) for pair in zip(references, generated, strict=True)]
        return [*(sum(score[name].fmeasure for score in scores) for name in self.names), len(scores)]

    def scores(self, sums: Statistics) -> dict[str, float]:
        """`rouge1`, `rouge2` and `rougeL`."""
        return {name: float(value / max(sums[-1], 1)) for name, value in zip(self.names, sums, strict=False)}


TEXT_METRICS: dict[str, type[TextMetric]] = {"BLEU": BLEU, "ROUGE": ROUGE}
