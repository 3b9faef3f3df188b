"""A slow rank among real ranks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from tests.support import launch, ranks
from tests.support.launch import RankResult
from tests.support.ranks import Place
from transformers import LlamaForCausalLM

from finetune_trainer.protocol.events import StepTime, StragglersFound
from finetune_trainer.tracking import stragglers

STEPS = 40


def run_rank_with_delay(place: Place, document: Path, delays: dict[int, float]) -> RankResult:
    """Run a whole rank whose forward passes take so many seconds longer; each step is an interval of its own."""
    stragglers.INTERVAL_SECONDS = 0.0
    delay = delays.get(place.rank, 0.0)

    def sleep(module: torch.nn.Module, _: object) -> None:
        if isinstance(module, LlamaForCausalLM):
            time.sleep(delay)

    torch.nn.modules.module.register_module_forward_pre_hook(sleep)
    return launch.run_rank(place, document)


@pytest.mark.parametrize(("delays", "expected"), [({1: 0.4}, [[(1, 1)]]), ({0: 0.1, 1: 0.1}, [[]])], ids=["slow", "equal"])
def test_names_the_slow_rank(tmp_path: Path, delays: dict[int, float], expected: list[list[tuple[int, int]]]) -> None:
    changes = {"training": {"maxSteps": STEPS, "batchSize": 4}, "evaluation": {"everySteps": STEPS}}
    document = launch.write_document(tmp_path, **changes)
    first, second = ranks.run(run_rank_with_delay, 2, document, delays)
    assert (first.code, second.code) == (0, 0)
    found = [event.stragglers for event in first.events if isinstance(event, StragglersFound)]
    named = [[(straggler.rank, int(straggler.ratio >= stragglers.NAMED_RATIO)) for straggler in verdict] for verdict in found]
    assert named == expected
    assert not any(isinstance(event, StragglersFound) for event in second.events)
    for result, rank in ((first, 0), (second, 1)):
        times = [event for event in result.events if isinstance(event, StepTime)]
        forward = sum(event.forward_seconds or 0 for event in times) / sum(event.steps for event in times)
        assert delays.get(rank, 0.0) <= forward < sum(event.seconds for event in times) / STEPS
