"""Label a text, or a pair of texts, from the model's summary of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
from transformers import AutoModelForSequenceClassification

from finetune_trainer.config.objectives.sequence_classification import SequenceClassificationConfig
from finetune_trainer.data.loading.collate import Batch, Layout, collate, pad_to_shape
from finetune_trainer.data.loading.dataset import TOKENS, Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import Collator, Objective, ObjectiveContext
from finetune_trainer.objectives.description import Block, row_block
from finetune_trainer.objectives.inputs.class_labels import TARGET, TARGET_TYPE, ClassLabels, LabeledEncoder
from finetune_trainer.objectives.inputs.tokenization import SEGMENTS, encoding_fingerprint
from finetune_trainer.objectives.losses.classification import ClassificationLoss
from finetune_trainer.objectives.metrics.classification import classification_metrics
from finetune_trainer.objectives.model_setups.classifier import ClassifierSetup


class SequenceClassification(Objective):
    """One label, several labels or a number for each text or pair of texts.

    A batch has the inputs `input_ids`, `attention_mask` and, where the tokenizer has segments, `token_type_ids`, all
    [rows, tokens], and the targets of `ClassificationLoss`.
    """

    encoder: LabeledEncoder

    @classmethod
    def assemble(cls, config: SequenceClassificationConfig, context: ObjectiveContext, processor: Any) -> Self:
        labels = ClassLabels(config, context.section)
        loss = ClassificationLoss(labels, context.label_smoothing)
        return cls(
            encoder=PairEncoder(processor, context, labels),
            collator=PairCollator(processor, labels),
            model_setup=SequenceClassificationSetup(labels=labels, pad_token_id=processor.pad_token_id),
            loss=loss,
            metrics=classification_metrics(loss, labels),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The text or pair of texts, and its label."""
        return [row_block("text", batch, 0, self.processor), self.encoder.labels.describe(batch)]


class PairEncoder(LabeledEncoder):
    """A text or a pair of texts, with the tokenizer's special tokens."""

    fields = MappingProxyType(
        {
            TOKENS: pyarrow.list_(pyarrow.int32()),
            SEGMENTS: pyarrow.list_(pyarrow.int8()),
            TARGET: TARGET_TYPE,
        }
    )

    @property
    def fingerprint(self) -> Any:
        return [*encoding_fingerprint(self.processor, self.context), *self.labels.fingerprint]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """A text that is too long is truncated at its end, a pair at the end of the longer text."""
        roles = [role for role in ("text", "text_pair") if role in rows[0].values]
        columns = [[row.values[role] for row in rows] for role in roles]
        encoded = self.processor(*columns, return_attention_mask=False, return_token_type_ids=True, verbose=False)
        for index, row in enumerate(rows):
            texts, target = [column[index] for column in columns], self.labels.encode(row)
            tokens, segments, status = encoded["input_ids"][index], encoded[SEGMENTS][index], EncodeStatus.KEPT
            if not any(text.strip() for text in texts):
                yield EncodedRow([], EncodeStatus.EMPTY)
                continue
            if target is None:
                yield EncodedRow([], EncodeStatus.UNLABELED)
                continue
            if len(tokens) > self.context.max_length:
                if self.context.overlong == "Drop":
                    yield EncodedRow([], EncodeStatus.DROPPED)
                    continue
                truncated = self.processor(
                    *texts, truncation=True, max_length=self.context.max_length, return_token_type_ids=True
                )
                tokens, segments, status = truncated["input_ids"], truncated[SEGMENTS], EncodeStatus.TRUNCATED
            example = {TOKENS: tokens, SEGMENTS: segments, TARGET: target}
            yield EncodedRow([example], status, self.labels.names_of(target))


class PairCollator(Collator):
    """Pads at the right."""

    def __init__(self, tokenizer: Any, labels: ClassLabels) -> None:
        self.tokenizer = tokenizer
        self.labels = labels

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        batch = collate(samples, self.tokenizer.pad_token_id, layout)
        if SEGMENTS in self.tokenizer.model_input_names:
            segments = [sample[SEGMENTS] for sample in samples]
            batch.inputs[SEGMENTS] = pad_to_shape(segments, batch.inputs[TOKENS].shape)
        batch.targets["labels"] = self.labels.collate(samples)
        return batch

    def count_terms(self, batch: Batch) -> Sequence[float]:
        """Known labels, or their weights."""
        return [self.labels.count_terms(batch.targets["labels"])]


@dataclass(kw_only=True)
class SequenceClassificationSetup(ClassifierSetup):
    """A model with a classification head."""

    pad_token_id: int
    pipeline_task: str = "text-classification"
    auto_class: Any = AutoModelForSequenceClassification
    peft_task_type: str | None = "SEQ_CLS"

    def config_overrides(self) -> dict[str, Any]:
        """The labels, and the padding token: some families summarize a text by the last token before the padding."""
        return super().config_overrides() | {"pad_token_id": self.pad_token_id}
