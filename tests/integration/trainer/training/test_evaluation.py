"""Each row of the evaluation data counts once at every world size."""

from __future__ import annotations

import math

import pytest
from tests.support import ranks, tiny, training

COUNTS = [1, 3, 5]


@pytest.mark.parametrize(("size", "stage"), [(1, 0), (2, 1), (2, 3), pytest.param(4, 3, marks=pytest.mark.slow)])
def test_metrics_equal_those_of_a_single_batch(size: int, stage: int) -> None:
    *results, interrupted = ranks.run(training.evaluate_row_counts, size, COUNTS, stage)[size - 1]
    expected = [tiny.llama()(**tiny.rows(count)).loss.item() for count in COUNTS]
    assert [result.metrics["loss"] for result in results] == pytest.approx(expected, rel=1e-5)
    assert [result.metrics["perplexity"] for result in results] == pytest.approx(
        [math.exp(loss) for loss in expected], rel=1e-4
    )
    assert interrupted is None
