"""Restore texts of which parts were hidden: how encoder-decoders are pre-trained (arXiv:1910.10683, arXiv:1910.13461)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow

from finetune_trainer.config.objectives.denoising import DenoisingConfig
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.huggingface.special_tokens import sentinel_token
from finetune_trainer.objectives.base import Collator, Encoder, Objective, ObjectiveContext
from finetune_trainer.objectives.description import Block
from finetune_trainer.objectives.inputs import noise
from finetune_trainer.objectives.inputs.text_to_text import collate_pairs, pair_blocks, target_tokens
from finetune_trainer.objectives.inputs.tokenization import (
    SpecialTokens,
    require_eos_token,
    special_tokens,
    tokenizer_fingerprint,
)
from finetune_trainer.objectives.losses.encoder_decoder import EncoderDecoderLoss
from finetune_trainer.objectives.losses.from_outputs import count_labels
from finetune_trainer.objectives.metrics.token_accuracy import TokenAccuracy
from finetune_trainer.objectives.model_setups.encoder_decoder import EncoderDecoderSetup
from finetune_trainer.protocol.outcome import ConfigurationError

SENTENCE_STARTS = "begins"  # of each token: 1 if it starts a sentence
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=\u3002)|\n+")  # U+3002 is the Chinese full stop


class Denoising(Objective):
    """The loss of an encoder-decoder that reads a noisy text and writes what is hidden, or the whole text."""

    @classmethod
    def assemble(cls, config: DenoisingConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer that lacks the tokens that the noise needs."""
        require_eos_token(processor)
        special = special_tokens(processor)
        max_tokens = _max_text_tokens(config, context, processor, special)
        add_noise: noise.Noise
        if config.noise == "SpanCorruption":
            sentinels = _sentinel_tokens(processor, config.spans.counts(max_tokens)[1])
            add_noise = noise.SpanCorruption(config.spans, sentinels)
        else:
            _require_mask_token(processor, config)
            add_noise = noise.TextInfilling(config.infilling, processor.mask_token_id)
        loss = EncoderDecoderLoss(context.label_smoothing)
        return cls(
            encoder=DenoisingEncoder(processor, context, max_tokens, _shuffles_sentences(config)),
            collator=DenoisingCollator(processor, special, add_noise),
            model_setup=EncoderDecoderSetup(eos_token_id=processor.eos_token_id),
            loss=loss,
            metrics=TokenAccuracy(loss, "tokenAccuracy", with_perplexity=True),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The noisy text and what is to be restored."""
        return pair_blocks(batch, self.processor)


def _shuffles_sentences(config: DenoisingConfig) -> bool:
    return config.noise == "TextInfilling" and config.infilling.shuffle_sentences


def _max_text_tokens(config: DenoisingConfig, context: ObjectiveContext, tokenizer: Any, special: SpecialTokens) -> int:
    """The tokens of the longest text of which neither the input nor the target exceeds maxLength."""
    input_overhead = special.total
    target_overhead = len(target_tokens(special.add_to(np.zeros(0)), tokenizer.eos_token_id))
    room = context.max_length - max(input_overhead, target_overhead)
    return config.spans.tokens_within(room) if config.noise == "SpanCorruption" else room


class DenoisingEncoder(Encoder):
    """The tokens of texts, without special tokens: these are added around input and target once there is noise."""

    fields = MappingProxyType({TOKENS: pyarrow.list_(pyarrow.int32()), SENTENCE_STARTS: pyarrow.list_(pyarrow.int8())})

    def __init__(self, processor: Any, context: ObjectiveContext, max_tokens: int, marks_sentences: bool) -> None:
        super().__init__(processor, context)
        self.max_tokens = max_tokens
        self.marks_sentences = marks_sentences

    @property
    def fingerprint(self) -> Any:
        return [tokenizer_fingerprint(self.processor), self.max_tokens, self.context.overlong, self.marks_sentences]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Texts of a single token, and such pieces of a text, are left out: nothing remains to restore the token from."""
        texts = [row.values["text"] for row in rows]
        encoded = self.processor(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False,
            return_offsets_mapping=self.marks_sentences,
        )  # fmt: skip
        for index, (text, ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            if len(ids) < 2:
                yield EncodedRow([], EncodeStatus.EMPTY)
                continue
            tokens, sentence_starts = np.array(ids, np.int32), np.zeros(len(ids), np.int8)
            if self.marks_sentences:
                token_ends = [end for _, end in encoded["offset_mapping"][index]]
                starts = [match.end() for match in SENTENCE_END.finditer(text)]
                sentence_starts[np.searchsorted(token_ends[:-1], starts, side="right")] = 1
            pieces, status = split_or_truncate(np.arange(len(ids)), self.max_tokens, self.context.overlong)
            examples: list[Mapping[str, Any]] = []
            for piece in pieces:
                if len(piece) > 1:
                    examples.append({TOKENS: tokens[piece], SENTENCE_STARTS: sentence_starts[piece]})
            yield EncodedRow(examples, status)


class DenoisingCollator(Collator):
    """Adds the noise, which is drawn again in each pass over the data, and depends on the seed, the pass and the row only."""

    def __init__(self, tokenizer: Any, special: SpecialTokens, add_noise: noise.Noise) -> None:
        self.tokenizer = tokenizer
        self.special_tokens = special
        self.add_noise = add_noise

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """The noisy texts as inputs, and what is to be restored as targets."""
        inputs, targets = [], []
        for sample, generator in zip(samples, generators, strict=True):
            noisy, target = self.add_noise(sample[TOKENS], sample[SENTENCE_STARTS], generator)
            inputs.append(self.special_tokens.add_to(noisy))
            targets.append(target_tokens(self.special_tokens.add_to(target), self.tokenizer.eos_token_id))
        return collate_pairs(inputs, targets, self.tokenizer, layout)

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Tokens of the targets."""
        return [count_labels(batch.targets["labels"])]


def _sentinel_tokens(tokenizer: Any, count: int) -> Tokens:
    """The ids of the first `count` sentinel tokens; raises ConfigurationError if the tokenizer has fewer."""
    vocabulary = tokenizer.get_vocab()
    present = 0
    while present < count and sentinel_token(present) in vocabulary:
        present += 1
    if present < count:
        raise ConfigurationError(
            f"spec.model.tokenizer: SpanCorruption needs {count} sentinel tokens for texts of this maxLength "
            f"({sentinel_token(0)} to {sentinel_token(count - 1)}), and the tokenizer has "
            f"{present}: use one made for T5, lower data.maxLength, or raise objective.denoising.spanCorruption.meanSpanLength"
        )
    return np.array([vocabulary[sentinel_token(number)] for number in range(count)], np.int32)


def _require_mask_token(tokenizer: Any, config: DenoisingConfig) -> None:
    if tokenizer.mask_token_id is None:
        raise ConfigurationError(
            "spec.model.tokenizer: it has no mask token: set mask_token in its tokenizer_config.json, or "
            "use a tokenizer made for BART"
        )
    if config.infilling.shuffle_sentences and not tokenizer.is_fast:
        raise ConfigurationError(
            "spec.objective.denoising.textInfilling.shuffleSentences: shuffling needs the tokens' character offsets: use the "
            "tokenizer's fast version, or set shuffleSentences: false"
        )
