"""Predict hidden tokens from both sides of them (Devlin et al. 2019, arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
from transformers import AutoModelForMaskedLM

from finetune_trainer.config.objectives.masked_lm import MaskedLMConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Collator, Encoder, ModelSetup, Objective, ObjectiveContext
from finetune_trainer.objectives.inputs.tokenization import encoding_fingerprint, special_tokens
from finetune_trainer.objectives.losses.from_outputs import TokenLoss, count_labels
from finetune_trainer.objectives.metrics.token_accuracy import TokenAccuracy
from finetune_trainer.protocol.outcome import ConfigurationError

WORD_STARTS = "begins"  # of each token: 1 if it starts a word, 0 if it continues one, or
SPECIAL = -1  # if the tokenizer added it: such a token is never hidden


class MaskedLM(Objective):
    """Cross entropy of the hidden tokens.

    A batch has the inputs `input_ids` and `attention_mask` or `position_ids`, and the targets `labels`, -100 except at hidden
    tokens; all [sequences, tokens].
    """

    @classmethod
    def assemble(cls, config: MaskedLMConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer that has no mask token, or none of the word boundaries of `wholeWord`."""
        require_mask_token(processor, config)
        loss = TokenLoss(context.label_smoothing)
        setup = ModelSetup(pipeline_task="fill-mask", auto_class=AutoModelForMaskedLM, is_causal=False)
        return cls(
            encoder=MaskedLMEncoder(processor, context, config.whole_word),
            collator=MaskedLMCollator(processor, config),
            model_setup=setup,
            loss=loss,
            metrics=TokenAccuracy(loss, "accuracy", with_perplexity=False),
        )


def require_mask_token(tokenizer: Any, config: MaskedLMConfig) -> None:
    """Raises ConfigurationError for a tokenizer that cannot hide tokens as the config says."""
    if tokenizer.mask_token_id is None:
        raise ConfigurationError(
            "spec.model.tokenizer: it has no mask token: set mask_token in its "
            "tokenizer_config.json, or use a tokenizer made for masked language models"
        )
    if config.whole_word and not tokenizer.is_fast:
        raise ConfigurationError(
            "spec.objective: wholeWord needs a tokenizer with word boundaries: use its fast version, or set wholeWord: false"
        )


class WordTokenizer:
    """Tokenizes texts and marks the tokens that start a word."""

    def __init__(self, tokenizer: Any, whole_word: bool) -> None:
        """Without `whole_word` each token is a word."""
        self.tokenizer = tokenizer
        self.whole_word = whole_word

    def tokenize(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """For each text its tokens and, in a second row, 1 where a word starts: [2, tokens] int32."""
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        for index, ids in enumerate(encoded["input_ids"]):
            yield np.stack([np.array(ids, np.int32), self._word_starts(encoded, index, len(ids))])

    def _word_starts(self, encoded: Any, index: int, count: int) -> Tokens:
        if not self.whole_word:
            return np.ones(count, np.int32)
        words = np.array([-1 if word is None else word for word in encoded.word_ids(index)], np.int32)
        word_starts: Tokens = np.diff(words, prepend=-2) != 0
        return word_starts.astype(np.int32)


class MaskedLMEncoder(Encoder):
    """A document is its text between the tokenizer's special tokens; so is each piece of a split one."""

    fields = MappingProxyType({TOKENS: pyarrow.list_(pyarrow.int32()), WORD_STARTS: pyarrow.list_(pyarrow.int8())})

    def __init__(self, processor: Any, context: ObjectiveContext, whole_word: bool) -> None:
        super().__init__(processor, context)
        self.words = WordTokenizer(processor, whole_word)
        self.special_tokens = special_tokens(processor)

    @property
    def fingerprint(self) -> Any:
        return [*encoding_fingerprint(self.processor, self.context), self.words.whole_word]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        room = self.context.max_length - self.special_tokens.total
        for marked in self.words.tokenize([row.values["text"] for row in rows]):
            # Positions are split instead of tokens, since each has two numbers.
            pieces, status = split_or_truncate(np.arange(marked.shape[1]), room, self.context.overlong)
            special = self.special_tokens
            examples = [join_pieces([special.prefix, special.suffix], [marked[:, piece]]) for piece in pieces]
            yield EncodedRow(examples, status)


def join_pieces(separators: Sequence[Tokens], pieces: Sequence[Tokens]) -> Mapping[str, Any]:
    """An example of pieces of text [2, tokens] between special tokens [tokens], of which there is one set more than pieces."""
    columns = [_mark_special(separators[0])]
    for piece, separator in zip(pieces, separators[1:], strict=True):
        columns += [_start_word(piece), _mark_special(separator)]
    tokens, word_starts = np.concatenate(columns, axis=1)
    return {TOKENS: tokens, WORD_STARTS: word_starts.astype(np.int8)}


def _mark_special(tokens: Tokens) -> Tokens:
    return np.stack([tokens, np.full_like(tokens, SPECIAL)])


def _start_word(piece: Tokens) -> Tokens:
    """A piece starts a word, even where the cut divided one: the rest of it counts as a word."""
    started = piece.copy()
    started[1, :1] = 1
    return started


class MaskedLMCollator(Collator):
    """Hides tokens one by one, or word by word.

    The choice is drawn again in each pass over the data, and depends on the seed, the pass and the row only.
    """

    def __init__(self, tokenizer: Any, config: MaskedLMConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        masked, labels = [], []
        for sample, generator in zip(samples, generators, strict=True):
            tokens, sample_labels = self._mask(sample, generator)
            masked.append({**sample, TOKENS: tokens})
            labels.append(sample_labels)
        return collate(masked, self.tokenizer.pad_token_id, layout, labels=labels, causal=False)

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Hidden tokens."""
        return [count_labels(batch.targets["labels"])]

    def _mask(self, sample: Sample, generator: np.random.Generator) -> tuple[Tokens, Tokens]:
        """The sample's tokens as the model reads them, and the labels: [tokens] int64 each."""
        tokens, marks, config = sample[TOKENS].astype(np.int64), sample[WORD_STARTS], self.config
        words = np.cumsum(marks == 1) - 1
        is_chosen = generator.random(int((marks == 1).sum())) < config.probability
        hidden = (marks != SPECIAL) & np.append(is_chosen, False)[words]
        labels = np.where(hidden, tokens, IGNORE_INDEX)
        draw = generator.random(len(tokens))
        tokens[hidden & (draw < config.mask_share)] = self.tokenizer.mask_token_id
        randomized = hidden & (draw >= config.mask_share) & (draw < config.mask_share + config.random_share)
        tokens[randomized] = generator.integers(0, len(self.tokenizer), int(randomized.sum()))
        return tokens, labels
