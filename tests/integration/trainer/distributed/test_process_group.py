"""DeepSpeed is imported after the process group is joined, and every rank gets the same result or the same error."""

from __future__ import annotations

import pytest
import torch
from tests.support import ranks, training
from tests.support.ranks import Place

from finetune_trainer.distributed import process_group
from finetune_trainer.distributed.collectives import on_every_rank, on_first_rank
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.outcome import DataError

ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))


def test_rejects_deepspeed_import_before_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    with pytest.raises(AssertionError, match=r"call process_group\.join before process_group\.import_deepspeed"):
        process_group.import_deepspeed()


def import_after_join(place: Place) -> str:
    with training.joined(place):
        return process_group.import_deepspeed().__name__


def test_imports_deepspeed_after_join() -> None:
    assert ranks.run(import_after_join, 1) == ["deepspeed"]


def fail() -> str:
    raise DataError("file: line 1")


def collect_errors(place: Place) -> list[str]:
    errors = []
    with training.joined(place) as group:
        assert on_first_rank(group, lambda: place.rank) == 0
        assert on_every_rank(group, lambda: place.rank) == place.rank
        for run, failing_rank in ((on_first_rank, 0), (on_every_rank, 1)):
            try:
                run(group, fail if place.rank == failing_rank else lambda: "done")
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
    return errors


def test_an_error_on_one_rank_is_raised_on_every_rank() -> None:
    assert ranks.run(collect_errors, 2) == [
        ["DataError: file: line 1", "TrainerError: another rank failed; its log has the error"],
        ["DataError: file: line 1", "DataError: file: line 1"],
    ]


def test_reraises_the_error_of_a_single_rank() -> None:
    with pytest.raises(DataError, match="file: line 1"):
        on_every_rank(ALONE, fail)
