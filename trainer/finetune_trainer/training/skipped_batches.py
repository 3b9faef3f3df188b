"""The batches of the data order that a run leaves out after it returned to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SkippedBatches:
    """Pairs of a step and the number of batches that are left out before the step after it, in the order of steps.

    It is part of a checkpoint, so that the data order is still a function of the step alone.
    """

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_list(cls, ranges: Sequence[Sequence[int]]) -> SkippedBatches:
        """Restore what `to_list` returned."""
        return cls(tuple((int(step), int(count)) for step, count in ranges))

    def to_list(self) -> list[list[int]]:
        """The ranges as plain values, for a checkpoint."""
        return [list(entry) for entry in self.ranges]

    def batch_of_step(self, finished_steps: int) -> int:
        """The index of the batch that the step after `finished_steps` reads."""
        return finished_steps + sum(count for step, count in self.ranges if step <= finished_steps)

    def after_roll_back(self, step: int, failed_step: int) -> SkippedBatches:
        """The batches to leave out when `failed_step` failed and the run returns to the checkpoint of `step`.

        These are, in addition, all batches from that checkpoint to the failed step.
        """
        earlier = SkippedBatches(tuple(entry for entry in self.ranges if entry[0] < step))
        count = self.batch_of_step(failed_step - 1) + 1 - earlier.batch_of_step(step)
        return SkippedBatches((*earlier.ranges, (step, count)))
