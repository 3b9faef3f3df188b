"""Label a text, or a pair of texts, from the model's summary of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
from transformers import AutoModelForSequenceClassification

from finetune_trainer.data.collate import Batch, Layout, collate, padded
from finetune_trainer.data.examples import Encoded, Fate
from finetune_trainer.data.records import Record
from finetune_trainer.data.rows import TOKENS, Row
from finetune_trainer.objectives.classification import TARGET, TARGET_TYPE, Classification
from finetune_trainer.objectives.text import SEGMENTS, fingerprint


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

    def encode(self, records: Sequence[Record]) -> Iterator[Encoded]:
        """A text or a pair of them, with the tokens around it; what is too long is cut at its end, a pair at the longer."""
        columns = [[record.values[role] for record in records] for role in ("text", "text_pair") if role in records[0].values]
        encoded = self.processor(*columns, return_attention_mask=False, return_token_type_ids=True, verbose=False)
        for index, record in enumerate(records):
            tokens, segments, fate = encoded["input_ids"][index], encoded[SEGMENTS][index], Fate.KEPT
            if not any(column[index].strip() for column in columns):
                yield Encoded([], Fate.EMPTY)
                continue
            if len(tokens) > self.spec.data.max_length:
                if self.spec.overlong == "Drop":
                    yield Encoded([], Fate.DROPPED)
                    continue
                shorter = self.processor(
                    *(column[index] for column in columns), truncation=True, max_length=self.spec.data.max_length,
                    return_token_type_ids=True,
                )  # fmt: skip
                tokens, segments, fate = shorter["input_ids"], shorter[SEGMENTS], Fate.TRUNCATED
            yield Encoded([{TOKENS: tokens, SEGMENTS: segments, TARGET: self.target(record)}], fate)

    def model_settings(self) -> dict[str, Any]:
        """The labels, and what padding is: the summary is that of the last token before it, in some families."""
        return super().model_settings() | {"pad_token_id": self.processor.pad_token_id}

    def collate(self, rows: Sequence[Row], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Padded at the right."""
        batch = collate(rows, self.processor.pad_token_id, layout)
        batch["labels"] = self.targets(rows)
        if SEGMENTS in self.processor.model_input_names:
            batch[SEGMENTS] = padded([row[SEGMENTS] for row in rows], batch[TOKENS].shape)
        return batch
