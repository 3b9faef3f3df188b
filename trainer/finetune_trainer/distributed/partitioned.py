"""Access to whole parameters, also to those that ZeRO stage 3 partitions over the ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from finetune_trainer.distributed.process_group import import_deepspeed


@contextlib.contextmanager
def whole_parameters(tensors: Sequence[torch.Tensor], *, writes: bool = False) -> Iterator[None]:
    """Within this context every rank holds the whole tensors; all ranks enter it together.

    With `writes`, changes that all ranks make alike are kept.
    """
    partitioned = {id(tensor): tensor for tensor in tensors if hasattr(tensor, "ds_id")}
    if not partitioned:
        yield
        return
    import_deepspeed()
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(list(partitioned.values()), modifier_rank=0 if writes else None), torch.no_grad():
        yield
