"""That all ranks learn from the same rows, each node having prepared them for itself."""

from __future__ import annotations

import torch

from finetune_trainer.data.checks.report import DataReport
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.outcome import DataError


def validate_same_rows(report: DataReport, world: ProcessGroup) -> None:
    """Raises DataError, on all ranks, where one has other rows than the first; all ranks must call it."""
    differs = world.broadcast(report.digests) != report.digests
    others, _ = world.gather(torch.tensor([[float(differs)]], dtype=torch.float64))
    ranks = others[:, 0].nonzero()[:, 0].tolist()
    if ranks:
        named = f"rank{'' if len(ranks) == 1 else 's'} {', '.join(map(str, ranks))}"
        raise DataError(
            f"spec.data: {named} prepared other rows than rank 0, as files, revisions or library versions differ between "
            "nodes: give all nodes the same"
        )
