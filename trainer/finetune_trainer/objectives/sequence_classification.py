"""Label a text, or a pair of texts, from the model's summary of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
from transformers import AutoModelForSequenceClassification

from finetune_trainer.data.loading.collate import Batch, Layout, collate, pad_to_shape
from finetune_trainer.data.loading.dataset import TOKENS, Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.classification import TARGET, TARGET_TYPE, Classification
from finetune_trainer.objectives.tokenization import SEGMENTS, fingerprint


class SequenceClassification(Classification):
    """A batch has `input_ids`, `attention_mask` and, where the tokenizer has segments, `token_type_ids`, all [rows, tokens]."""

    task: ClassVar[str] = "text-classification"
    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    adapter_task: ClassVar[str | None] = "SEQ_CLS"
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        SEGMENTS: pyarrow.list_(pyarrow.int8()),
        TARGET: TARGET_TYPE,
    }

    @property
    def identity(self) -> Any:
        return [fingerprint(self.processor), self.spec.data.max_length, self.spec.overlong, *self.target_identity]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """A text or a pair of them, with the tokens around it; what is too long is cut at its end, a pair at the longer."""
        columns = [[record.values[role] for record in records] for role in ("text", "text_pair") if role in records[0].values]
        encoded = self.processor(*columns, return_attention_mask=False, return_token_type_ids=True, verbose=False)
        for index, record in enumerate(records):
            tokens, segments, status = encoded["input_ids"][index], encoded[SEGMENTS][index], EncodeStatus.KEPT
            if not any(column[index].strip() for column in columns):
                yield EncodedRow([], EncodeStatus.EMPTY)
                continue
            if len(tokens) > self.spec.data.max_length:
                if self.spec.overlong == "Drop":
                    yield EncodedRow([], EncodeStatus.DROPPED)
                    continue
                shorter = self.processor(
                    *(column[index] for column in columns), truncation=True, max_length=self.spec.data.max_length,
                    return_token_type_ids=True,
                )  # fmt: skip
                tokens, segments, status = shorter["input_ids"], shorter[SEGMENTS], EncodeStatus.TRUNCATED
            yield EncodedRow([{TOKENS: tokens, SEGMENTS: segments, TARGET: self.target(record)}], status)

    def model_config_overrides(self) -> dict[str, Any]:
        """The labels, and what padding is: the summary is that of the last token before it, in some families."""
        return super().model_config_overrides() | {"pad_token_id": self.processor.pad_token_id}

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Padded at the right."""
        batch = collate(rows, self.processor.pad_token_id, layout)
        batch["labels"] = self.targets(rows)
        if SEGMENTS in self.processor.model_input_names:
            batch[SEGMENTS] = pad_to_shape([row[SEGMENTS] for row in rows], batch[TOKENS].shape)
        return batch
