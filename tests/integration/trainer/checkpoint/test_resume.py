"""A resumed run goes on as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import ranks, s3
from tests.support.checkpoints import Life, Lived, live


@pytest.mark.parametrize(
    ("stage", "precision", "kind"),
    [(0, "fp32", "file"), (1, "fp32", "s3"), (2, "fp32", "file"), (3, "fp32", "s3"), (1, "bf16", "file"), (3, "bf16", "s3")],
)
def test_the_curve_is_that_of_an_uninterrupted_run(
    tmp_path: Path, s3_server: s3.Server, stage: int, precision: str, kind: str
) -> None:
    uri = f"file://{tmp_path}/out" if kind == "file" else s3_server.uri(f"resume-{stage}-{precision}")
    life = Life(uri, f"{tmp_path}/work", s3_server.environment, stage, precision, steps=7, every=4)
    whole: list[Lived] = ranks.run(live, 2, life)
    assert whole[0].resumed is None
    assert whole[0].stored == [4], whole[0].failed
    resumed: list[Lived] = ranks.run(live, 2, replace(life, attempt="second"))
    assert [lived.resumed for lived in resumed] == [4, 4]
    assert resumed[0].losses == {number: loss for number, loss in whole[0].losses.items() if number > 4}
