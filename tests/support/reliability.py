"""Measures what a fault costs a run, and keeps the results of which `docs/reference/reliability.md` is made."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from tests.support.cluster_run import CHECKPOINT_EVERY, ClusterRun
from tests.support.training_log import Recovery

from finetune_operator.codegen.reliability_page import KEPT_RUNS, RESULTS, Result, load_results

RECORD = "FINETUNE_RECORD"
"""The environment variable with which results are written to the repository."""


@dataclass
class Injection:
    """A fault that is being injected; `recovery` is set when the run has recovered."""

    time: float
    recovery: Recovery | None = None


@dataclass(frozen=True)
class Measure:
    """Measures one fault test; its number is the row in the list of faults."""

    test: str

    @contextmanager
    def fault(
        self, number: int, case: str, run: ClusterRun, *, restarts: int = 1, steps_lost: int = 2 * CHECKPOINT_EVERY,
        seconds: float = 240,
    ) -> Iterator[Injection]:  # fmt: skip
        """Inject a fault in the block, then wait until the run has recovered, and check and record what it cost.

        `restarts` is how often the fault makes all ranks start again, and `steps_lost` how many steps are computed again at
        most: those since the last checkpoint, and those while the next one was being stored. The losses up to the first
        checkpoint after the fault must equal those of an undisturbed run to the last bit.
        """
        injection = Injection(time.time())
        yield injection
        recovered = run.wait_for_recovery(injection.time, restarts, seconds=seconds)
        run.wait_for_checkpoint(run.log.update().highest_step)
        run.check_curve()
        # A restart that came after the recovery counts too.
        recovered = run.wait_for_recovery(injection.time, restarts, seconds=1)
        injection.recovery = recovered
        self.record(number, case, recovered.seconds, recovered.steps_lost, max(0, recovered.restarts - restarts))
        assert recovered.restarts == restarts, f"{recovered.restarts} restarts instead of {restarts}"
        assert recovered.steps_lost <= steps_lost

    def record(
        self, number: int, case: str, seconds: float | None, steps_lost: int | None = None, false_kills: int = 0
    ) -> None:
        """Print the result, and write it to the repository if that was asked for."""
        print(f"fault {number}, {case}: {seconds} s to recover, {steps_lost} steps lost, {false_kills} false kills")
        if os.environ.get(RECORD):
            result = Result(
                date=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=None if seconds is None else round(seconds, 1),
                steps_lost=steps_lost,
                false_kills=false_kills,
            )
            _add_result(number, case, self.test, result)


def _add_result(number: int, case: str, test: str, result: Result) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{number:02}.json"
    cases = load_results(file) if file.exists() else {}
    results = cases.get(case, {"test": test, "runs": []})["runs"] + [result]
    cases[case] = {"test": test, "runs": results[-KEPT_RUNS:]}
    file.write_text(json.dumps(dict(sorted(cases.items())), indent=1) + "\n")


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """Measures the fault of this test."""
    path = request.node.path.relative_to(request.config.rootpath)
    return Measure(f"{path}::{request.node.originalname}")
