"""A resumed run continues exactly like one that was not interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import ranks, s3
from tests.support.checkpoints import Attempt, AttemptResult, run_attempt


@pytest.mark.parametrize(
    ("stage", "precision", "kind"),
    [
        (0, "fp32", "file"),
        (1, "fp32", "s3"),
        (3, "fp32", "s3"),
        (1, "bf16", "file"),
        pytest.param(2, "fp32", "file", marks=pytest.mark.slow),
        pytest.param(3, "bf16", "s3", marks=pytest.mark.slow),
    ],
)
def test_resumed_losses_match_uninterrupted_run(
    tmp_path: Path, s3_server: s3.Server, stage: int, precision: str, kind: str
) -> None:
    uri = f"file://{tmp_path}/out" if kind == "file" else s3_server.uri(f"resume-{stage}-{precision}")
    attempt = Attempt(uri, f"{tmp_path}/work", s3_server.environment, stage, precision, steps=7, every=4)
    uninterrupted: list[AttemptResult] = ranks.run(run_attempt, 2, attempt)
    assert uninterrupted[0].resumed is None
    assert uninterrupted[0].stored == [4], uninterrupted[0].failed
    resumed: list[AttemptResult] = ranks.run(run_attempt, 2, replace(attempt, name="second"))
    assert [result.resumed for result in resumed] == [4, 4]
    assert resumed[0].losses == {number: loss for number, loss in uninterrupted[0].losses.items() if number > 4}
