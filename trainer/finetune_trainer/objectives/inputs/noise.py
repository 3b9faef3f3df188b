"""Noise for texts that a model restores. It depends on the random generator only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finetune_trainer.config.objectives.denoising import SpanCorruptionConfig, TextInfillingConfig
from finetune_trainer.data.loading.dataset import Tokens

Noise = Callable[[Tokens, Tokens, np.random.Generator], tuple[Tokens, Tokens]]
"""Makes the noisy text and the target from a text's tokens [tokens] and marks [tokens], 1 where a sentence starts."""


@dataclass(frozen=True)
class SpanCorruption:
    """T5's noise: hidden spans are sentinels in the input, and the target is the hidden spans."""

    config: SpanCorruptionConfig
    sentinels: Tokens

    def __call__(self, tokens: Tokens, sentence_starts: Tokens, generator: np.random.Generator) -> tuple[Tokens, Tokens]:
        """The noisy text and the target."""
        return corrupt_spans(tokens, self.sentinels, self.config, generator)


@dataclass(frozen=True)
class TextInfilling:
    """BART's noise: hidden spans are masks in the input, and the target is the whole text."""

    config: TextInfillingConfig
    mask: int

    def __call__(self, tokens: Tokens, sentence_starts: Tokens, generator: np.random.Generator) -> tuple[Tokens, Tokens]:
        """The noisy text and the target."""
        noisy = tokens
        if self.config.shuffle_sentences:
            noisy = shuffle_sentences(tokens, sentence_starts, generator)
        return infill(noisy, self.mask, self.config, generator), tokens


def corrupt_spans(
    tokens: Tokens, sentinels: Tokens, config: SpanCorruptionConfig, generator: np.random.Generator
) -> tuple[Tokens, Tokens]:
    """The input and the target for a text of at least two tokens, in T5's way (Raffel et al. 2020, section 3.1.4).

    In the input each hidden span is one sentinel, numbered from the left; in the target each visible stretch between them is.
    The text starts with a visible stretch and ends with a hidden span, as in the data of the published models; so nothing
    follows the last span, where the paper's figures have one more sentinel.
    """
    hidden, spans = config.counts(len(tokens))
    lengths = np.empty(2 * spans, np.int64)
    lengths[::2] = _random_segments(len(tokens) - hidden, spans, generator)
    lengths[1::2] = _random_segments(hidden, spans, generator)
    is_hidden = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)
    return _replace_stretches(tokens, is_hidden, sentinels), _replace_stretches(tokens, ~is_hidden, sentinels)


def infill(tokens: Tokens, mask: int, config: TextInfillingConfig, generator: np.random.Generator) -> Tokens:
    """The text with a share of its tokens hidden, one mask for each span, in BART's way (Lewis et al. 2019, section 2.2).

    Spans are at random positions and do not overlap; an empty span is a mask between two tokens. The text never becomes longer.
    """
    hidden = round(len(tokens) * config.mask_ratio)
    spans = _poisson_lengths(hidden, config.mean_span_length, generator)
    count = len(tokens) - hidden + len(spans)
    is_span = np.zeros(count, bool)
    is_span[generator.choice(count, len(spans), replace=False)] = True
    lengths = np.ones(count, np.int64)
    lengths[is_span] = spans
    starts = np.cumsum(lengths) - lengths
    return np.where(is_span, mask, tokens[starts.clip(max=len(tokens) - 1)])


def shuffle_sentences(tokens: Tokens, sentence_starts: Tokens, generator: np.random.Generator) -> Tokens:
    """The text with its sentences, each of which starts where `sentence_starts` is 1, in random order."""
    sentences = np.split(tokens, np.flatnonzero(sentence_starts[1:]) + 1)
    return np.concatenate([sentences[index] for index in generator.permutation(len(sentences))])


def _random_segments(total: int, count: int, generator: np.random.Generator) -> Tokens:
    """Lengths of `count` segments of at least one that add up to `total`; all divisions are equally likely."""
    cuts = np.sort(generator.choice(total - 1, count - 1, replace=False)) + 1
    lengths: Tokens = np.diff(cuts, prepend=0, append=total)
    return lengths


def _poisson_lengths(total: int, mean: float, generator: np.random.Generator) -> Tokens:
    """Poisson-distributed lengths that add up to `total`; the last is shortened, or lengthened where too many are 0."""
    drawn = generator.poisson(mean, total)
    last = int(np.searchsorted(np.cumsum(drawn), total))
    lengths: Tokens = drawn[: last + 1]
    lengths[-1:] += total - lengths.sum()
    return lengths


def _replace_stretches(tokens: Tokens, is_replaced: Tokens, sentinels: Tokens) -> Tokens:
    """The tokens with one sentinel, in order, for each stretch of replaced ones."""
    is_start = is_replaced & ~np.append(False, is_replaced[:-1])
    replaced: Tokens = np.where(is_start, sentinels[np.cumsum(is_start) - 1], tokens)[is_start | ~is_replaced]
    return replaced
