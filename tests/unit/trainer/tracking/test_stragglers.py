"""Which ranks are named as stragglers, from the times of their own work."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from finetune_trainer.protocol.outcome import Straggler
from finetune_trainer.tracking import stragglers
from finetune_trainer.tracking.stragglers import StragglerDetector

Times = Callable[[random.Random, int], list[float]]
STEPS = 300


def detect(times: Times, step_seconds: float = 1.0, per_node: int = 2, seed: int = 1) -> Iterator[tuple[int, list[Straggler]]]:
    """The verdicts and their steps; each step takes `step_seconds`, and `times` returns the ranks' own times in it."""
    generator, now = random.Random(seed), 0.0
    detector = StragglerDetector(per_node, clock=lambda: now)
    for step in range(STEPS):
        verdict = detector.observe(times(generator, step), step_seconds)
        now += step_seconds
        if verdict is not None:
            yield step, verdict


def noisy(generator: random.Random, seconds: float) -> float:
    """A time on a machine with other work: mostly a little longer, sometimes several times as long."""
    return seconds * (1 + generator.random() / 4) * (generator.choice((2, 4)) if generator.random() < 0.1 else 1)


def equal(size: int) -> Times:
    return lambda generator, step: [noisy(generator, 0.3) for _ in range(size)]


def one_slow(size: int, rank: int, factor: float) -> Times:
    return lambda generator, step: [noisy(generator, 0.3 * (factor if index == rank else 1)) for index in range(size)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param(one_slow(2, 1, 2.0), [(1, 0)], id="one of two ranks"),
        pytest.param(one_slow(2, 0, 2.0), [(0, 0)], id="rank 0 itself"),
        pytest.param(one_slow(8, 5, 1.7), [(5, 2)], id="one of eight"),
        pytest.param(one_slow(8, 5, 1.3), [], id="slower, but not by half"),
        pytest.param(one_slow(1, 0, 3.0), None, id="nothing to compare with"),
        pytest.param(
            lambda generator, step: [noisy(generator, seconds) for seconds in (0.9, 0.3, 0.6, 0.3, 0.3, 0.3)],
            [(0, 0), (2, 1)], id="two, the slowest first",
        ),
        pytest.param(
            lambda generator, step: [0.9 if index in (step % 4, (step + 1) % 4) else 0.3 for index in range(4)], [],
            id="long batches, in turn",
        ),
        pytest.param(lambda generator, step: [0.3 * (5 if step % 3 == 0 else 1)] * 2, [], id="the machine slows down all"),
        pytest.param(lambda generator, step: [0.3, 0.3 * (9 if step % 5 == 0 else 1)], [], id="pauses in one step of five"),
        pytest.param(lambda generator, step: [0.03, 0.003, 0.003], [], id="too little of the step to matter"),
    ],
)  # fmt: skip
def test_first_verdict(times: Times, expected: list[tuple[int, int]] | None) -> None:
    verdicts = list(detect(times))
    if expected is None:
        assert verdicts == []
        return
    step, first = verdicts[0]
    assert step == stragglers.INTERVALS
    assert [(straggler.rank, straggler.node) for straggler in first] == expected
    assert len(verdicts) == 1, "it does not change"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [2, 3, 16])
def test_names_nobody_among_equal_ranks_on_a_loaded_machine(size: int, seed: int) -> None:
    assert [verdict for _, verdict in detect(equal(size), seed=seed)] == [[]]


def test_ratio_is_relative_to_the_median_of_the_others() -> None:
    (_, (straggler,)), *_ = detect(lambda generator, step: [0.1, 0.2, 0.3, 0.5], per_node=4)
    assert (straggler.rank, straggler.ratio) == (3, 2.5)


def test_fast_steps_are_judged_over_the_same_time() -> None:
    (step, verdict), *_ = detect(one_slow(2, 1, 2.0), step_seconds=0.125)
    assert step == 8 * stragglers.INTERVALS
    assert [straggler.rank for straggler in verdict] == [1]


def test_a_rank_that_recovers_is_named_no_longer() -> None:
    def times(generator: random.Random, step: int) -> list[float]:
        factor = 2.0 if step < 100 else 1.4 if step < 200 else 1.0
        return [0.3, 0.3 * factor]

    verdicts = [(step, [straggler.rank for straggler in verdict]) for step, verdict in detect(times)]
    assert [ranks for _, ranks in verdicts] == [[1], []]
    assert verdicts[1][0] > 200, "1.4 is not enough to be named, nor to be released"
