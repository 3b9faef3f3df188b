"""A run resumes with another number of ranks, another ZeRO stage or another number format than its checkpoint has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import ranks, s3
from tests.support.checkpoints import Attempt, run_attempt


@pytest.mark.parametrize(
    ("before", "after", "tolerance"),
    [
        pytest.param((2, 1, "fp32"), (1, 1, "fp32"), 1e-4, id="two ranks to one", marks=pytest.mark.slow),
        pytest.param((1, 2, "fp32"), (2, 2, "fp32"), 1e-4, id="one rank to two"),
        pytest.param((2, 3, "fp32"), (1, 3, "fp32"), 1e-4, id="stage 3 on fewer ranks"),
        pytest.param((1, 3, "fp32"), (2, 3, "fp32"), 1e-4, id="stage 3 on more ranks", marks=pytest.mark.slow),
        pytest.param((2, 2, "fp32"), (1, 1, "fp32"), 1e-4, id="stage 2 to 1 on fewer ranks"),
        pytest.param((2, 0, "fp32"), (1, 0, "fp32"), 1e-4, id="stage 0 on fewer ranks"),
        pytest.param((2, 1, "fp32"), (2, 1, "bf16"), 5e-2, id="bfloat16 from float32"),
    ],
)
def test_resumes_in_another_topology(
    tmp_path: Path, s3_server: s3.Server, before: tuple[int, int, str], after: tuple[int, int, str], tolerance: float
) -> None:
    name = "-".join(map(str, (*before, *after)))
    attempt = Attempt(
        s3_server.uri(f"topology-{name}"), f"{tmp_path}/work", s3_server.environment, steps=7, every=4, is_deterministic=True
    )
    uninterrupted = ranks.run(run_attempt, before[0], replace(attempt, stage=before[1], precision=before[2]))
    resumed = ranks.run(run_attempt, after[0], replace(attempt, stage=after[1], precision=after[2], name="second"))
    assert {result.resumed for result in resumed} == {4}
    expected = {number: loss for number, loss in uninterrupted[0].losses.items() if number > 4}
    assert resumed[0].losses == pytest.approx(expected, rel=tolerance)


def test_rejects_impossible_conversion(tmp_path: Path) -> None:
    attempt = Attempt(f"file://{tmp_path}/out", f"{tmp_path}/work", stage=0, steps=1, every=1)
    ranks.run(run_attempt, 1, attempt)
    with pytest.raises(AssertionError, match=r"ConfigurationError: spec\.deepspeed\.zeroStage: the checkpoint is of stage 0"):
        ranks.run(run_attempt, 1, replace(attempt, stage=1))
