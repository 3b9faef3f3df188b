"""Validates that all nodes prepared the same data."""

from __future__ import annotations

import torch

from finetune_trainer.data.checks.report import DataReport
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.outcome import DataError


def validate_same_rows(report: DataReport, world: ProcessGroup) -> None:
    """Raises DataError on all ranks if the data of one differs from that of rank 0; all ranks must call it."""
    differs = world.broadcast(report.digests) != report.digests
    flags, _ = world.gather(torch.tensor([[float(differs)]], dtype=torch.float64))
    ranks = flags[:, 0].nonzero()[:, 0].tolist()
    if ranks:
        names = f"rank{'' if len(ranks) == 1 else 's'} {', '.join(map(str, ranks))}"
        raise DataError(
            f"spec.data: {names} prepared other rows than rank 0, as files, revisions or library versions differ between "
            "nodes: give all nodes the same"
        )
