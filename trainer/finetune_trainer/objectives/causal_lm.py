"""Predict each token from those before it (Radford et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow

from finetune_trainer.config.objectives.causal_lm import CausalLMConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate, document_starts
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Collator, Encoder, Objective, ObjectiveContext
from finetune_trainer.objectives.inputs.tokenization import (
    append_eos,
    encoding_fingerprint,
    require_eos_token,
    tokenize,
)
from finetune_trainer.objectives.losses.from_outputs import NextTokenLoss, count_labels
from finetune_trainer.objectives.metrics.token_accuracy import Perplexity
from finetune_trainer.objectives.model_setups.causal import CausalModelSetup


class CausalLM(Objective):
    """Cross entropy of the next token over documents.

    A batch has the inputs `input_ids` and, where the layout needs them, `position_ids` and `attention_mask`, and the targets
    `labels`, all [sequences, tokens].
    """

    @classmethod
    def assemble(cls, config: CausalLMConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer without an end-of-text token."""
        require_eos_token(processor)
        loss = NextTokenLoss(context.label_smoothing)
        return cls(
            encoder=CausalLMEncoder(processor, context),
            collator=CausalLMCollator(processor),
            model_setup=CausalModelSetup(),
            loss=loss,
            metrics=Perplexity(loss),
        )


class CausalLMEncoder(Encoder):
    """A document is the tokens that the tokenizer puts before a text, the text, and one end-of-text token."""

    fields = MappingProxyType({TOKENS: pyarrow.list_(pyarrow.int32())})

    @property
    def fingerprint(self) -> Any:
        return encoding_fingerprint(self.processor, self.context)

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Pieces of a split document overlap by one token, so that each token but the first is predicted once."""
        texts = [row.values["text"] for row in rows]
        for text, tokens in zip(texts, tokenize(texts, self.processor), strict=True):
            if not text:
                yield EncodedRow([], EncodeStatus.EMPTY)
                continue
            document = append_eos(tokens, self.processor.eos_token_id)
            pieces, status = split_or_truncate(document, self.context.max_length, self.context.overlong, overlap=1)
            yield EncodedRow([{TOKENS: piece} for piece in pieces], status)


class CausalLMCollator(Collator):
    """Sequences of one document, or of several packed together."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """The first token of a document is not a label: it follows another document, or nothing."""
        labels = []
        for sample in samples:
            sample_labels = self.labels(sample)
            sample_labels[document_starts(sample)] = IGNORE_INDEX
            labels.append(sample_labels)
        return collate(samples, self.tokenizer.pad_token_id, layout, labels=labels)

    def labels(self, sample: Sample) -> Tokens:
        """The labels of a sample, [tokens] int64: all of its tokens."""
        return sample[TOKENS].astype(np.int64)

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Predicted tokens: the first of a sequence never is one."""
        return [count_labels(batch.targets["labels"][:, 1:])]
