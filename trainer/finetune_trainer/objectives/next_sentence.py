"""Predict hidden tokens, and whether one piece of text follows another (Devlin et al. 2019, arXiv:1810.04805)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForPreTraining

from finetune_trainer.config.objectives.next_sentence import NextSentenceConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, pad_to_shape
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import (
    BatchStatistics,
    Collator,
    Encoder,
    Metrics,
    ModelSetup,
    Objective,
    ObjectiveContext,
    Statistics,
)
from finetune_trainer.objectives.description import Block, text_block
from finetune_trainer.objectives.inputs.tokenization import (
    SEGMENTS,
    encoding_fingerprint,
    run_on_short_texts,
    separator_tokens,
    special_tokens,
)
from finetune_trainer.objectives.losses.cross_entropy import summed_cross_entropy
from finetune_trainer.objectives.losses.from_outputs import OutputLoss, count_labels
from finetune_trainer.objectives.masked_lm import (
    MaskedLMCollator,
    MaskedLMEncoder,
    WordTokenizer,
    join_pieces,
    require_mask_token,
)
from finetune_trainer.objectives.metrics.token_accuracy import count_correct

FOREIGN = "foreign"  # 0 if the second piece follows the first, or 1, as in the models' labels
FOREIGN_LABELS = "next_sentence_labels"
# A sentence ends before a new line, after a full stop and the like before a blank, or after those of Chinese and Japanese.
BOUNDARY = re.compile(r"(?<!\n)(?=\n)|(?<=[.!?])(?=\s)|(?<=[\u3002\uff01\uff1f])")
Document = Sequence[Tokens]
"""Its pieces: sentences, or parts of long ones, each [2, tokens] as `WordTokenizer` makes them."""


class NextSentence(Objective):
    """Cross entropy of the hidden tokens, and that of whether the second piece follows the first.

    A batch has the inputs `input_ids`, `token_type_ids` and `attention_mask` [rows, tokens], and the targets `labels`
    [rows, tokens], -100 except at hidden tokens, and `next_sentence_labels` [rows].
    """

    @classmethod
    def assemble(cls, config: NextSentenceConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer that has no mask token, or none of the word boundaries of `wholeWord`."""
        require_mask_token(processor, config)
        loss = NextSentenceLoss()
        return cls(
            encoder=SentencePairEncoder(processor, context, config),
            collator=SentencePairCollator(MaskedLMCollator(processor, config)),
            model_setup=NextSentenceSetup(),
            loss=loss,
            metrics=NextSentenceMetrics(loss),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """Both pieces, and whether the second follows the first."""
        answer = "no" if batch.targets[FOREIGN_LABELS].item() else "yes"
        return [*super().describe(sample, batch), text_block("second piece follows the first", answer, trained=True)]


class SentencePairEncoder(Encoder):
    """Pairs of pieces of text that together fill a row.

    A second piece that does not follow the first is from another of the documents that are encoded together; a document
    without others has only pairs that follow.
    """

    fields = MappingProxyType({**MaskedLMEncoder.fields, SEGMENTS: pyarrow.list_(pyarrow.int8()), FOREIGN: pyarrow.int8()})

    def __init__(self, processor: Any, context: ObjectiveContext, config: NextSentenceConfig) -> None:
        super().__init__(processor, context)
        self.words = WordTokenizer(processor, config.whole_word)
        self.next_sentence_share = config.next_sentence_share
        special = special_tokens(processor)
        self.separators = [special.prefix, separator_tokens(processor), special.suffix]
        self.room = context.max_length - sum(map(len, self.separators))

    @property
    def fingerprint(self) -> Any:
        tokens = [*encoding_fingerprint(self.processor, self.context), self.words.whole_word]
        return [tokens, self.next_sentence_share]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """As many pairs as the document gives; a single sentence gives none."""
        texts = [row.values["text"] for row in rows]
        documents = self._tokenize(texts)
        non_empty = [document for document in documents if document]
        position = 0  # of the document in `non_empty`
        for text, document in zip(texts, documents, strict=True):
            if len(document) < 2:
                yield EncodedRow([], EncodeStatus.EMPTY)
            else:
                others = non_empty[:position] + non_empty[position + 1 :]
                yield self._encode_document(document, self._pairs(document, others, _generator_for(text)))
            position += bool(document)

    def _tokenize(self, texts: Sequence[str]) -> list[Document]:
        """The pieces of each text. A sentence longer than half a row becomes several, so that two pieces always fit."""
        max_length = self.room // 2
        text_sentences = [split_sentences(text) for text in texts]
        tokenized = self.words.tokenize(list(chain.from_iterable(text_sentences)))
        documents: list[Document] = []
        for sentences in text_sentences:
            pieces = []
            for _ in sentences:
                tokens = next(tokenized)
                for begin in range(0, tokens.shape[1], max_length):
                    pieces.append(tokens[:, begin : begin + max_length])
            documents.append(pieces)
        return documents

    def _encode_document(self, document: Document, pairs: Iterator[Mapping[str, Any]]) -> EncodedRow:
        if sum(piece.shape[1] for piece in document) <= self.room:
            return EncodedRow(list(pairs), EncodeStatus.KEPT)
        match self.context.overlong:
            case "Drop":
                return EncodedRow([], EncodeStatus.DROPPED)
            case "Truncate":
                return EncodedRow([next(pairs)], EncodeStatus.TRUNCATED)
            case "Split":
                return EncodedRow(list(pairs), EncodeStatus.SPLIT)

    def _pairs(
        self, document: Document, others: Sequence[Document], generator: np.random.Generator
    ) -> Iterator[Mapping[str, Any]]:
        """As many pieces of the document as fit in a row, divided at random into a first and a second part.

        Where the second part is to be foreign, it has as many pieces of another document, so that its length reveals little,
        and the document's own second part starts the next row.
        """
        ends = np.cumsum([0, *(piece.shape[1] for piece in document)])
        begin = 0
        while begin + 1 < len(document):
            end = int(np.searchsorted(ends, ends[begin] + self.room, side="right")) - 1
            middle = int(generator.integers(begin + 1, end))
            first, second = document[begin:middle], document[middle:end]
            is_foreign = len(others) > 0 and generator.random() >= self.next_sentence_share
            if is_foreign:
                other = others[int(generator.integers(len(others)))]
                start = int(generator.integers(max(1, len(other) - len(second) + 1)))
                second = other[start : start + len(second)]
            yield self._example(np.concatenate(first, axis=1), np.concatenate(second, axis=1), is_foreign)
            begin = middle if is_foreign else end

    def _example(self, first: Tokens, second: Tokens, is_foreign: bool) -> Mapping[str, Any]:
        example = join_pieces(self.separators, [first, second[:, : self.room - first.shape[1]]])
        second_start = len(self.separators[0]) + first.shape[1] + len(self.separators[1])
        return {**example, SEGMENTS: np.arange(len(example[TOKENS])) >= second_start, FOREIGN: int(is_foreign)}


class SentencePairCollator(Collator):
    """Hides tokens as MaskedLM does."""

    def __init__(self, masking: MaskedLMCollator) -> None:
        self.masking = masking

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        batch = self.masking.collate(samples, generators, layout)
        batch.inputs[SEGMENTS] = pad_to_shape([sample[SEGMENTS] for sample in samples], batch.inputs[TOKENS].shape)
        batch.targets[FOREIGN_LABELS] = torch.tensor([int(sample[FOREIGN]) for sample in samples] or [IGNORE_INDEX])
        return batch

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Hidden tokens, and pairs."""
        return [*self.masking.count_terms(batch), count_labels(batch.targets[FOREIGN_LABELS])]


@dataclass(kw_only=True)
class NextSentenceSetup(ModelSetup):
    """A model with both heads of BERT's pretraining."""

    pipeline_task: str = "fill-mask"
    auto_class: Any = AutoModelForPreTraining

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that does not compare two pieces."""
        advice = "use a family that is pretrained like BERT, such as ERNIE or MegatronBERT"
        run_on_short_texts(model, "seq_relationship_logits", advice)


class NextSentenceLoss(OutputLoss):
    """The cross entropy of the hidden tokens, and that of the pairs, without label smoothing."""

    names = ("masked", "nextSentence")

    def from_outputs(self, outputs: Any, batch: Batch, smoothing: float) -> torch.Tensor:
        """The summed cross entropies, [2]."""
        masked = summed_cross_entropy(outputs.prediction_logits.flatten(0, 1), batch.targets["labels"].flatten())
        pairs = summed_cross_entropy(outputs.seq_relationship_logits, batch.targets[FOREIGN_LABELS])
        return torch.stack([masked, pairs])


class NextSentenceMetrics(Metrics[Batch]):
    """Both losses and their sum, and the accuracy of hidden tokens and of pairs."""

    def __init__(self, loss: NextSentenceLoss) -> None:
        self.loss = loss

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: correct hidden tokens, all hidden tokens, correct pairs, all pairs."""
        outputs = self.loss.forward(model, batch)
        masked = count_correct(outputs.prediction_logits, batch.targets["labels"])
        pairs = count_correct(outputs.seq_relationship_logits, batch.targets[FOREIGN_LABELS])
        return BatchStatistics(self.loss.from_outputs(outputs, batch, 0.0), torch.cat([masked, pairs]))

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, and `masked.loss`, `masked.accuracy`, `nextSentence.loss` and `nextSentence.accuracy`."""
        metrics = {"loss": sum(losses)}
        counts = statistics.reshape(2, 2).tolist()
        for name, loss, (correct, count) in zip(self.loss.names, losses, counts, strict=True):
            metrics |= {f"{name}.loss": loss, f"{name}.accuracy": correct / max(count, 1)}
        return metrics


def split_sentences(text: str) -> list[str]:
    """The sentences and lines of a text, each with the blanks before it."""
    return [sentence for sentence in BOUNDARY.split(text) if sentence.strip()]


def _generator_for(text: str) -> np.random.Generator:
    """Random numbers that depend on the text only."""
    return np.random.Generator(np.random.Philox(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())))
