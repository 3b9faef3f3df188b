"""Each row of the evaluation data counts once, whatever the number of ranks."""

from __future__ import annotations

import math

import pytest
from tests.support import ranks, tiny, training

COUNTS = [1, 3, 5]


@pytest.mark.parametrize(("size", "stage"), [(1, 0), (2, 1), (2, 3), (4, 3)])
def test_metrics_are_those_of_all_rows_at_once(size: int, stage: int) -> None:
    *measured, broken_off = ranks.run(training.evaluate_row_counts, size, COUNTS, stage)[size - 1]
    expected = [tiny.llama()(**tiny.rows(count)).loss.item() for count in COUNTS]
    assert [found.metrics["loss"] for found in measured] == pytest.approx(expected, rel=1e-5)
    assert [found.metrics["perplexity"] for found in measured] == pytest.approx([math.exp(loss) for loss in expected], rel=1e-4)
    assert broken_off is None
