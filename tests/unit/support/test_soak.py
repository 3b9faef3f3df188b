"""The report of a soak test."""

from __future__ import annotations

from tests.support.soak import FAULTS, Report
from tests.support.training_log import Entry, Recovery


def test_reports_goodput_lost_work_and_false_kills() -> None:
    faults = {fault.name: fault for fault in FAULTS}
    report = Report(
        seed=7,
        recoveries=[
            (faults["SIGKILL of a rank"], Recovery(8.0, 2, 2)),
            (faults["the operator is killed"], Recovery(0.1, 0, 0)),
        ],
        # Steps 1 to 4 in 4 s, a restart from step 2 in 6 s, the steps 3 to 5 in 3 s.
        entries=[
            *(Entry(float(step), step, False) for step in range(1, 5)), Entry(9.0, 2, True),
            *(Entry(7.0 + step, step, False) for step in range(3, 6)),
        ],
    )  # fmt: skip
    assert report.false_kills == 1
    assert report.goodput == 5 / 11
    assert report.text().splitlines()[-5:] == [
        "seed         7",
        "goodput      45.5 % of 0.2 minutes",
        "lost work    2 of 5 steps were computed again",
        "false kills  1",
        "recovery     8.0 s median, 8.0 s longest, after a restart",
    ]
