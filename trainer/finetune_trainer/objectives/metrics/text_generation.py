"""Metrics of generated texts, from sums over texts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from finetune_trainer.objectives.base import Statistics
from finetune_trainer.objectives.metrics.words import BLEU_TOKENIZERS, bleu_tokenizer, unicode_words


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
    """Papineni et al. 2002, as sacrebleu's `corpus_bleu` computes it (Post 2018, arXiv:1804.08771), between 0 and 100.

    Each text is divided into words by the tokenizer for the script of its reference; see `bleu_tokenizer`.
    """

    width = 10

    def __init__(self) -> None:
        from sacrebleu.metrics.bleu import BLEU as Library

        # `force` omits advice on texts that look tokenized.
        self._libraries = {name: Library(tokenize=name, force=True) for name in BLEU_TOKENIZERS}

    def sums(self, generated: Sequence[str], references: Sequence[str]) -> Sequence[float]:
        """Matches and n-grams for n from 1 to 4, then generated words and reference words."""
        sums = np.zeros(self.width)
        tokenizers = [bleu_tokenizer(reference) for reference in references]
        for name, library in self._libraries.items():
            indices = [index for index, tokenizer in enumerate(tokenizers) if tokenizer == name]
            if indices:
                score = library.corpus_score(
                    [generated[index] for index in indices], [[references[index] for index in indices]]
                )
                sums += [*score.counts, *score.totals, score.sys_len, score.ref_len]
        return sums.tolist()

    def scores(self, sums: Statistics) -> dict[str, float]:
        """`bleu`."""
        counts = [int(number) for number in sums]
        library = self._libraries["13a"]
        # Texts of fewer than four words have no 4-grams: without the effective order even an exact copy of them would have 0.
        score = library.compute_bleu(
            counts[:4], counts[4:8], counts[8], counts[9], smooth_method=library.smooth_method, effective_order=True
        )
        return {"bleu": score.score}


class ROUGE:
    """F1 of ROUGE-1, -2 and -L (Lin 2004), as rouge_score computes it: the mean over texts, between 0 and 1.

    The words are those of `unicode_words`, since rouge_score's own are of Latin letters and digits only.
    """

    width = 4
    names = ("rouge1", "rouge2", "rougeL")

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._library = RougeScorer(list(self.names), tokenizer=_UnicodeTokenizer())

    def sums(self, generated: Sequence[str], references: Sequence[str]) -> Sequence[float]:
        """The sum of each F1, then the number of texts."""
        scores = [self._library.score(*pair) for pair in zip(references, generated, strict=True)]
        return [*(sum(score[name].fmeasure for score in scores) for name in self.names), len(scores)]

    def scores(self, sums: Statistics) -> dict[str, float]:
        """`rouge1`, `rouge2` and `rougeL`."""
        return {name: float(value / max(sums[-1], 1)) for name, value in zip(self.names, sums, strict=False)}


class _UnicodeTokenizer:
    """The interface that rouge_score expects of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return unicode_words(text)


TEXT_METRICS: dict[str, type[TextMetric]] = {"BLEU": BLEU, "ROUGE": ROUGE}
