"""The sequences that a run trains on, as they are collated for its first epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import Layout, PackedAs
from finetune_trainer.data.loading.dataloader import BatchBuilder, MicroBatch
from finetune_trainer.data.loading.dataset import TOKENS, Sample
from finetune_trainer.data.loading.origins import document_digests
from finetune_trainer.data.loading.sampler import SampledIndices
from finetune_trainer.data.preprocessing.examples import FirstRow
from finetune_trainer.data.preprocessing.prepare import Prepared
from finetune_trainer.objectives import Objective
from finetune_trainer.objectives.description import Block
from finetune_trainer.preview.report import ShownSequence

MAX_SEARCHED = 20_000
"""Packed sequences that are searched for the first rows."""


@dataclass(frozen=True)
class CollatedSequences:
    """The prepared training sequences, each collated alone by the code that collates a run's batches."""

    spec: TrainSpec
    objective: Objective
    data: Prepared

    def __len__(self) -> int:
        return len(self.data.train)

    def collate(self, index: int) -> MicroBatch:
        """The micro-batch of one sequence in the first epoch."""
        layout = Layout(PackedAs.POSITIONS if self.spec.packing else None, torch.float32, training=True)
        builder = BatchBuilder(
            self.data.train, self.objective.collator, layout, rank=0, size=1, micro_batch_size=1,
            seed=self.spec.training.seed, pin=False,
        )  # fmt: skip
        [micro_batch] = builder(SampledIndices(np.array([index]), np.array([0])))
        return micro_batch

    def blocks(self, index: int) -> list[Block]:
        """What the model gets for one sequence."""
        return self.objective.describe(self.data.train[index], self.collate(index).batch)

    def first(self, rows: int) -> list[ShownSequence]:
        """The sequences with the first `rows` rows of each source."""
        chosen = list(_first_of_each_source(self.data.first_rows, rows))
        if self.spec.packing:
            return self._packed(chosen, rows)
        return [self._shown(row.example, [row.origin]) for row in chosen]

    def _packed(self, rows: Sequence[FirstRow], limit: int) -> list[ShownSequence]:
        """The sequences that hold the rows, in the order of the rows, and at most `limit` for each source."""
        origins = {row.digest: row.origin for row in self.data.first_rows}
        places = _find_documents(self.data.train, {row.digest for row in rows})
        indices = dict.fromkeys(places[row.digest] for row in rows if row.digest in places) or range(min(limit, len(self)))
        shown = []
        for index in indices:
            digests = document_digests(self.data.train[index])
            shown.append(self._shown(index, [origins.get(digest) for digest in digests]))
        return shown

    def _shown(self, index: int, origins: Sequence[str | None]) -> ShownSequence:
        blocks = self.blocks(index)
        for number, origin in enumerate(origins):
            blocks[number] = blocks[number].model_copy(update={"origin": origin})
        tokens = len(self.data.train[index].get(TOKENS, ()))
        return ShownSequence(index=index, tokens=tokens, blocks=blocks)


def _first_of_each_source(rows: Sequence[FirstRow], count: int) -> Iterator[FirstRow]:
    for source in dict.fromkeys(row.source for row in rows):
        yield from islice((row for row in rows if row.source == source), count)


def _find_documents(sequences: Sequence[Sample], digests: set[str]) -> dict[str, int]:
    """The index of the first sequence that holds the document with each digest, where one is found."""
    places: dict[str, int] = {}
    for index in range(min(len(sequences), MAX_SEARCHED)):
        for digest in document_digests(sequences[index]):
            if digest in digests:
                places.setdefault(digest, index)
        if len(places) == len(digests):
            break
    return places
