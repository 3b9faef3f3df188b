"""Hours of runs in simulated time: a working rank is never taken for a hanging one, and a stopped one is always found."""

from __future__ import annotations

import pytest
from tests.support.simulated_run import SHARE_SECONDS, simulate


@pytest.mark.parametrize("seed", range(5))
def test_no_working_run_is_killed(seed: int) -> None:
    run, found = simulate(seed)
    assert found is None
    assert run.now > 3600


@pytest.mark.parametrize("seed", range(5))
def test_a_stopped_rank_is_found_within_its_limit(seed: int) -> None:
    length = simulate(seed)[0].now
    run, found = simulate(seed, freeze=lambda chance: (chance.randrange(8), chance.uniform(0.0, 0.9 * length)))
    if run.frozen_rank not in run._running:
        return  # it had ended before
    assert found is not None
    # The other ranks go on until they need the stopped one; the limit begins with the last sign of life of all.
    assert found.at <= max(found.last_beat, run.frozen_at) + found.limit + SHARE_SECONDS
