"""How often an epoch sees the sequences of each source, where weights or replay set their shares."""

from __future__ import annotations

import numpy as np

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.sampler import quotas
from finetune_trainer.data.preprocessing.mixing import group_kind
from finetune_trainer.data.preprocessing.prepare import Prepared
from finetune_trainer.preview.report import SourceShare


def source_shares(spec: TrainSpec, data: Prepared) -> list[SourceShare]:
    """The share of each weighted source and of the replayed data; empty if each sequence is seen once an epoch."""
    kind = group_kind(spec.data)
    if data.mixture is None or kind == "label":
        return []
    fields = [f"data.train[{number}]" for number in range(len(spec.data.train))] if kind == "source" else ["data.train"]
    if spec.training.replay:
        fields.append("data.replay")
    sequences = np.bincount(data.mixture.groups, minlength=len(fields)).tolist()
    seen = quotas(data.mixture.shares, data.epoch)
    shares = []
    for field, own, own_seen in zip(fields, sequences, seen, strict=True):
        shares.append(SourceShare(field=field, sequences=own, seen_per_epoch=own_seen))
    return shares
