"""How texts are spoilt for a model to restore them; random numbers decide, and nothing else."""

from __future__ import annotations

import numpy as np

from finetune_trainer.config.objectives.denoising import SpanCorruptionConfig, TextInfillingConfig
from finetune_trainer.data.loading.dataset import Tokens

Random = np.random.Generator


def corrupt_spans(tokens: Tokens, sentinels: Tokens, options: SpanCorruptionConfig, random: Random) -> tuple[Tokens, Tokens]:
    """What is read and what is written of a text of at least two tokens, in T5's way (Raffel et al. 2020, section 3.1.4).

    In what is read each hidden span is one sentinel, numbered from the left; in what is written, each stretch between them. The
    text begins with a stretch that stays and ends with a span that does not, as in the data that the published models saw; so
    nothing follows the last span, where the paper's figures have one more sentinel.
    """
    hidden, spans = options.counts(len(tokens))
    lengths = np.empty(2 * spans, np.int64)
    lengths[::2] = _segments(len(tokens) - hidden, spans, random)
    lengths[1::2] = _segments(hidden, spans, random)
    is_hidden = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)
    return _replaced(tokens, is_hidden, sentinels), _replaced(tokens, ~is_hidden, sentinels)


def infill(tokens: Tokens, mask: int, options: TextInfillingConfig, random: Random) -> Tokens:
    """The text with a share of its tokens behind masks, one for each span, in BART's way (Lewis et al. 2019, section 2.2).

    Spans lie anywhere and do not overlap; one without tokens is a mask between two others. There are never more tokens than
    before.
    """
    hidden = round(len(tokens) * options.mask_ratio)
    spans = _poisson_lengths(hidden, options.mean_span_length, random)
    count = len(tokens) - hidden + len(spans)
    is_span = np.zeros(count, bool)
    is_span[random.choice(count, len(spans), replace=False)] = True
    lengths = np.ones(count, np.int64)
    lengths[is_span] = spans
    starts = np.cumsum(lengths) - lengths
    return np.where(is_span, mask, tokens[starts.clip(max=len(tokens) - 1)])


def shuffle(tokens: Tokens, begins: Tokens, random: Random) -> Tokens:
    """The text with its sentences, which begin where `begins` is 1, in random order."""
    sentences = np.split(tokens, np.flatnonzero(begins[1:]) + 1)
    return np.concatenate([sentences[index] for index in random.permutation(len(sentences))])


def _segments(total: int, count: int, random: Random) -> Tokens:
    """Lengths of `count` parts of at least one, all divisions equally likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    lengths: Tokens = np.diff(cuts, prepend=0, append=total)
    return lengths


def _poisson_lengths(total: int, mean: float, random: Random) -> Tokens:
    """Poisson-distributed lengths that add up to `total`, the last cut short (or made longer, where too many are 0)."""
    drawn = random.poisson(mean, total)
    last = int(np.searchsorted(np.cumsum(drawn), total))
    lengths: Tokens = drawn[: last + 1]
    lengths[-1:] += total - lengths.sum()
    return lengths


def _replaced(tokens: Tokens, is_out: Tokens, sentinels: Tokens) -> Tokens:
    """The tokens with a sentinel for each stretch of those that are out, in their order."""
    begins = is_out & ~np.append(False, is_out[:-1])
    changed: Tokens = np.where(begins, sentinels[np.cumsum(begins) - 1], tokens)[begins | ~is_out]
    return changed
