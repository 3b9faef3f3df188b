"""Which documents and data may resume from a checkpoint, and what is said about those that may not."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest

from finetune_trainer.checkpoint import resume_policy
from finetune_trainer.checkpoint.data_record import DataRecord, SourceRecord
from finetune_trainer.checkpoint.manifest import Manifest
from finetune_trainer.checkpoint.run_identity import identity
from finetune_trainer.config import ScheduleConfig, TrainSpec
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.training.lr_schedule import learning_rate_factor

URI = "file:///out"
DOCUMENT: dict[str, Any] = {
    "model": {"source": "hf://a/b"},
    "data": {"train": [{"source": "file:///data/a.jsonl"}]},
    "training": {"maxSteps": 100},
    "checkpoint": {"storage": URI},
}


def source(*contents: str, names: str = "abcdefgh", is_named: bool = True) -> SourceRecord:
    digests = [hashlib.sha256(content.encode()).hexdigest() for content in contents]
    combined = hashlib.sha256("".join(digests).encode()).hexdigest()
    files = dict(zip(names, digests, strict=False)) if is_named else {}
    return SourceRecord(digest=combined, count=len(digests), files=files)


def record(*contents: str, **sources: SourceRecord) -> DataRecord:
    return DataRecord(sources={"data.train[0]": source(*contents), **sources}, rows={"train": "t", "evaluation": "e"})


def manifest(step: int = 40, total_steps: int | None = 100, data: DataRecord | None = None) -> Manifest:
    return Manifest(
        step=step, total_steps=total_steps, attempt="a", world_size=1, zero_stage=1, precision="float32",
        identity=identity(TrainSpec.model_validate(DOCUMENT)), data=data, files=[], time="2026-01-01T00:00:00Z", deepspeed="0",
        torch="0",
    )  # fmt: skip


def changed_identity(**changes: Any) -> dict[str, Any]:
    return identity(TrainSpec.model_validate({**DOCUMENT, **changes}))


def test_names_every_field_that_makes_another_run() -> None:
    other = changed_identity(training={"seed": 7, "batchSize": 8, "maxSteps": 100})
    with pytest.raises(ConfigurationError) as error:
        resume_policy.validate_same_document(URI, manifest(), other)
    assert str(error.value) == (
        "spec.training.batchSize: spec.checkpoint.storage file:///out holds the checkpoints of another run, which is at step "
        "40 of 100 (spec.training.batchSize was 32 and is 8; spec.training.seed was 42 and is 7): restore the old document, or "
        "choose another spec.checkpoint.storage"
    )


def test_data_may_move_if_its_contents_are_known() -> None:
    moved = changed_identity(data={"train": [{"source": "file:///elsewhere/b.jsonl"}]})
    resume_policy.validate_same_document(URI, manifest(data=record("x")), moved)
    with pytest.raises(ConfigurationError, match=r"^spec\.data\.train\[0\]\.source: "):
        resume_policy.validate_same_document(URI, manifest(data=None), moved)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (source("x", "y"), source("x", "z"), "b changed"),
        (source("x", "y"), source("x"), "b was removed"),
        (source("x"), source("x", "y", "z"), "b, c were added"),
        (source("x", "y"), source("z", "y", "w"), "a changed, c was added"),
        (source("x", "y", names="ab"), source("y", "x", names="ba"), "the order of its files changed"),
        (source(*"12345"), source(*"67890"), "a, b, c and 2 more changed"),
        (source("x", "y", is_named=False), source("x", is_named=False), "some of its 1 files (they were 2) changed"),
    ],
)
def test_names_the_files_that_changed(before: SourceRecord, after: SourceRecord, change: str) -> None:
    stored, current = DataRecord(sources={"data.train[0]": before}), DataRecord(sources={"data.train[0]": after})
    with pytest.raises(DataError) as error:
        resume_policy.validate_same_files(URI, manifest(data=stored), current)
    assert str(error.value) == (
        f"spec.data.train[0].source: {change} since the run in file:///out stored step 40 of 100: restore the old data, or "
        "choose another spec.checkpoint.storage"
    )


def test_files_may_be_renamed() -> None:
    stored = DataRecord(sources={"data.train[0]": source("x", "y", names="ab")})
    current = DataRecord(sources={"data.train[0]": source("x", "y", names="cd")})
    resume_policy.validate_same_files(URI, manifest(data=stored), current)


def test_other_evaluation_data_is_said_and_allowed(caplog: pytest.LogCaptureFixture) -> None:
    stored = record("x", **{"data.evaluation[0]": source("e")})
    with caplog.at_level(logging.WARNING):
        resume_policy.validate_same_files(URI, manifest(data=stored), record("x", **{"data.evaluation[0]": source("f")}))
    assert caplog.messages == ["spec.data.evaluation[0]: a changed since the run stored step 40 of 100"]
    assert resume_policy.has_other_evaluation_rows(manifest(data=stored), {"train": "t", "evaluation": "other"})
    assert not resume_policy.has_other_evaluation_rows(manifest(data=stored), {"train": "t", "evaluation": "e"})


def test_rejects_other_sequences_of_the_same_files() -> None:
    stored = manifest(data=record("x"))
    resume_policy.validate_same_rows(URI, stored, {"train": "t", "evaluation": "other"})
    with pytest.raises(DataError, match=r"^spec\.data: the training data becomes other sequences than when .* step 40 of 100"):
        resume_policy.validate_same_rows(URI, stored, {"train": "other", "evaluation": "e"})
    with pytest.raises(DataError):
        resume_policy.validate_same_rows(URI, stored, {"train": "t", "replay": "r"})


def test_translated_sequences_may_differ(caplog: pytest.LogCaptureFixture) -> None:
    resume_policy.validate_same_rows(URI, manifest(data=record("x")), {"train": "other"}, are_translated=True)
    assert "differs from that of step 40 of 100" in caplog.text


def test_rejects_a_length_below_the_checkpoint() -> None:
    resume_policy.validate_length(URI, manifest(40), 40, "maxSteps")
    with pytest.raises(ConfigurationError) as error:
        resume_policy.validate_length(URI, manifest(40), 39, "epochs")
    assert str(error.value) == (
        "spec.training.epochs: the run in file:///out has 40 steps already, more than the 39 of the document: set epochs to "
        "reach at least 40 steps, or choose another spec.checkpoint.storage"
    )


@pytest.mark.parametrize(
    ("schedule", "step", "before", "after", "sentence"),
    [
        ({}, 40, 100, 100, None),
        ({}, 40, None, 100, None),
        ({}, 100, 100, 100, "all 100 steps were trained before: the model is exported again"),
        ({}, 100, None, 100, "all 100 steps were trained before: the model is exported again"),
        ({"type": "Constant"}, 100, 100, 200, "the run is prolonged from 100 to 200 steps: the learning rate stays at 1"),
        ({}, 50, 100, 50, "the run is shortened from 100 to 50 steps, which it has already trained"),
    ],
)
def test_describes_a_change_of_length(
    schedule: dict[str, Any], step: int, before: int | None, after: int, sentence: str | None
) -> None:
    config = ScheduleConfig.model_validate(schedule)
    described = resume_policy.describe_continuation(
        manifest(step, before), after, lambda number, total: learning_rate_factor(config, number, total)
    )
    assert described == sentence


def test_says_how_a_decaying_schedule_goes_on() -> None:
    def rate(step: int, total_steps: int) -> float:
        return 2e-5 * (1 - step / total_steps)

    assert resume_policy.describe_continuation(manifest(100, 100), 400, rate) == (
        "the run is prolonged from 100 to 400 steps: the schedule now spans 400 steps, so that the learning rate goes from 0 "
        "at step 100 to 1.5e-05 at step 101"
    )
