"""The reliability page: its figures, and the tests that it names."""

from __future__ import annotations

import re

import pytest

from finetune_operator.codegen.fault_tests import FAULTS
from finetune_operator.codegen.reliability_page import KEPT_RUNS, ROOT, Case, Result, all_results, render


def result(seconds: float | None, steps_lost: int | None = 0, false_kills: int = 0) -> Result:
    return Result(date="2026-01-01T12:00:00+00:00", seconds=seconds, steps_lost=steps_lost, false_kills=false_kills)


@pytest.mark.parametrize(
    ("runs", "figures"),
    [
        pytest.param([result(12.34, 5)], "12.3 | 5 | 0 | 1", id="one run"),
        pytest.param([result(9.0, 5), result(3.0, 2), result(4.0, 7, 1)], "4.0 (3.0 to 9.0) | 7 | 1 | 3", id="several runs"),
        pytest.param([result(None, None)], "— | — | 0 | 1", id="a run that is meant to fail"),
    ],
)
def test_summarizes_runs(runs: list[Result], figures: str) -> None:
    page = render({2: {"SIGKILL": Case(test="tests/faults/test_x.py::test_y", runs=runs)}})
    assert f"\n| 2 | SIGKILL | {figures} |\n" in page


def test_says_that_nothing_was_measured() -> None:
    assert "No results are recorded yet" in render({})


def test_names_tests_that_exist() -> None:
    named = [test for fault in FAULTS.values() for test in fault.tests]
    named += [case["test"] for cases in all_results().values() for case in cases.values()]
    missing = []
    for test in named:
        file, _, function = test.partition("::")
        path = ROOT / file
        if not path.is_file() or not re.search(rf"^(async )?def {function}\(", path.read_text(), re.MULTILINE):
            missing.append(test)
    assert missing == []


def test_every_measurement_belongs_to_a_test_of_its_fault() -> None:
    for number, cases in all_results().items():
        for name, case in cases.items():
            assert case["test"] in FAULTS[number].tests, name
            assert 1 <= len(case["runs"]) <= KEPT_RUNS


def test_every_fault_has_a_test() -> None:
    assert [number for number, fault in FAULTS.items() if not fault.tests] == []
    assert sorted(FAULTS) == list(range(1, len(FAULTS) + 1))


def test_lists_the_faults_that_no_test_causes_on_the_cluster() -> None:
    assert "- The faults 14, 21, 25 are not caused on the cluster;" in render({})
