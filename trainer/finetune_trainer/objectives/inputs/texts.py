"""Texts in examples and batches, which metrics compare with a model's answers: tokens do not give back every text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow
import torch

from finetune_trainer.data.loading.collate import Batch, pad_to_shape
from finetune_trainer.data.loading.dataset import Sample

TEXTS, TEXT_LENGTHS = "texts", "text_lengths"  # UTF-8 of all texts of an example; bytes of each text
TEXT_FIELDS = MappingProxyType({TEXTS: pyarrow.list_(pyarrow.uint8()), TEXT_LENGTHS: pyarrow.list_(pyarrow.int32())})
_ABSENT = -1  # the length where another row of the batch has more texts


def store_texts(texts: Sequence[str]) -> Mapping[str, Any]:
    """The fields of an example that hold these texts."""
    encoded = [text.encode() for text in texts]
    return {TEXTS: np.frombuffer(b"".join(encoded), np.uint8), TEXT_LENGTHS: [len(text) for text in encoded]}


def collate_texts(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """The targets of a batch that hold the texts: UTF-8 of all of them [bytes] and the lengths [rows, most texts of a row]."""
    lengths = [sample[TEXT_LENGTHS] for sample in samples]
    most = max(map(len, lengths), default=0)
    texts = np.concatenate([sample[TEXTS] for sample in samples]) if samples else np.zeros(0, np.uint8)
    return {TEXTS: torch.from_numpy(texts), TEXT_LENGTHS: pad_to_shape(lengths, (len(samples), most), _ABSENT)}


def texts_of_rows(batch: Batch) -> Iterator[list[str]]:
    """The texts of each row of the batch."""
    whole, begin = batch.targets[TEXTS].cpu().numpy().tobytes(), 0
    for lengths in batch.targets[TEXT_LENGTHS].tolist():
        texts = []
        for length in lengths:
            if length != _ABSENT:
                texts.append(whole[begin : begin + length].decode())
                begin += length
        yield texts
