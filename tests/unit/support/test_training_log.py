"""What the log of a run says about its recovery from a fault."""

from __future__ import annotations

import pytest
from tests.support.training_log import Entry, Recovery, lost_steps, parse_line, recovery, useful_seconds


def entries(text: str) -> list[Entry]:
    """Entries from words such as `1.5:3`, a step at 1.5 seconds, and `4:r2`, a resume from step 2."""
    result = []
    for word in text.split():
        time, _, step = word.partition(":")
        result.append(Entry(float(time), int(step.lstrip("r")), step.startswith("r")))
    return result


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        pytest.param(
            "2026-11-29T16:40:32.831123456Z stderr F 2026-11-29 16:40:32,831 rank 0 INFO step 17/20 (85 %) loss 5.7 gradient",
            Entry(1795970432.831123, 17, False),
            id="step",
        ),
        pytest.param(
            "2026-11-29T16:40:32Z stderr F 2026-11-29 16:40:32,831 rank 0 INFO resumed from step 15: s3://a/manifests/step-1",
            Entry(1795970432.0, 15, True),
            id="resume",
        ),
        pytest.param(
            "2026-11-29T16:40:32.8Z stderr F 2026-11-29 16:40:32,831 rank 0 INFO step 3: evaluation loss 5.7",
            None,
            id="evaluation",
        ),
        pytest.param("", None, id="no line"),
    ],
)
def test_parses_lines(line: str, entry: Entry | None) -> None:
    assert parse_line(line) == entry


@pytest.mark.parametrize(
    ("log", "fault", "restarts", "expected"),
    [
        pytest.param("1:1 2:2", 1.5, 0, Recovery(0.5, 0, 0), id="training goes on"),
        pytest.param("1:1 2:2", 2.5, 0, None, id="no step yet"),
        pytest.param("1:5 2:6 2.2:7 9:r5 10:6", 2.1, 1, Recovery(7.9, 2, 1), id="restart after a last step"),
        pytest.param("1:5 2:6 9:r5", 2.1, 1, None, id="restarted, but no step yet"),
        pytest.param("1:5 2:6 3:7", 2.1, 1, None, id="the restart is still to come"),
        pytest.param("1:5 2:6 9:r5 10:6 11:7 12:r5 13:6", 2.1, 1, Recovery(7.9, 3, 2), id="a second restart"),
        pytest.param("1:5 2:6 9:r5 12:r5 13:6", 2.1, 2, Recovery(10.9, 1, 2), id="two expected restarts"),
        pytest.param("1:5 2:6 9:r6 10:7", 2.1, 1, Recovery(7.9, 0, 1), id="saved on request"),
    ],
)
def test_measures_recovery(log: str, fault: float, restarts: int, expected: Recovery | None) -> None:
    measured = recovery(entries(log), fault, restarts=restarts)
    assert measured == (expected and pytest.approx(expected))


def test_steps_computed_again_are_lost() -> None:
    log = entries("1:1 2:2 3:3 3.5:4 9:r2 10:3 11:4 12:5")
    assert lost_steps(log) == 2
    # The steps 2, 4 and 5 took a second each; 1 and the second 3 began before the log shows it.
    assert useful_seconds(log) == 5.0
