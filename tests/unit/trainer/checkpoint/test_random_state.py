"""The random numbers of ranks that have no state of their own in a checkpoint."""

from __future__ import annotations

import torch

from finetune_trainer.checkpoint.random_state import reseed


def numbers(rank: int, step: int) -> tuple[float, ...]:
    """The random numbers of a rank that resumes at a step, or starts at step 0."""
    torch.manual_seed(42 + rank)
    if step:
        reseed(step)
    return tuple(torch.rand(3).tolist())


def test_every_rank_and_step_has_its_own_numbers() -> None:
    drawn = [numbers(rank, step) for rank in range(4) for step in range(4)]
    assert len(set(drawn)) == 16
    assert numbers(1, 3) == numbers(1, 3), "a resumed run can be repeated"
