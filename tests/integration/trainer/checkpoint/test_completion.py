"""The completion record: by whom it is written, and for which run and document it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.checkpoint.completion import COMPLETION, find_completion, record_completion
from finetune_trainer.checkpoint.manifest import OWNER
from finetune_trainer.config import TrainSpec
from finetune_trainer.protocol.outcome import Outcome, Progress, Reason, SavedCheckpoint
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage
from finetune_trainer.training.engine import merge

DOCUMENT: dict[str, Any] = {
    "model": {"source": "hf://a/b"},
    "data": {"train": [{"source": "s3://bucket/x.jsonl", "credentials": "storage"}]},
    "training": {"maxSteps": 10},
    "checkpoint": {"storage": "s3://bucket/run"},
}
OUTCOME = Outcome(
    reason=Reason.COMPLETE,
    message="trained 10 steps; the model is at s3://bucket/run/model",
    progress=Progress(step=10, total_steps=10, percent=100, loss=1.25),
    metrics={"loss": 1.25, "evalLoss": 1.5},
    checkpoint=SavedCheckpoint(step=10, time="2026-01-01T12:00:00Z", uri="s3://bucket/run/manifests/step-00000010.json"),
    model="s3://bucket/run/model",
)


def spec(**changes: Any) -> TrainSpec:
    return TrainSpec.model_validate(merge(DOCUMENT, changes))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A storage that the attempt 2 owns."""
    storage = open_storage(f"file://{tmp_path}/run", Credentials())
    storage.put(OWNER, b"2")
    return storage


@pytest.mark.parametrize(
    ("name", "run_id", "changes", "is_found"),
    [
        ("the same run", "uid", {}, True),
        ("another job with this storage", "other", {}, False),
        ("a longer run", "uid", {"training": {"maxSteps": 20}}, False),
        ("epochs instead of steps", "uid", {"training": {"maxSteps": None, "epochs": 2}}, False),
        ("another evaluation", "uid", {"data": {"evaluationFraction": 0.1}}, False),
        ("another export", "uid", {"export": {"storage": "s3://bucket/model"}}, False),
        ("other credentials", "uid", {"data": {"train": [{"source": "s3://bucket/x.jsonl", "credentials": "new"}]}}, True),
    ],
)
def test_counts_for_the_same_run_and_document(
    storage: Storage, name: str, run_id: str, changes: dict[str, Any], is_found: bool
) -> None:
    record_completion(storage, "uid", "2", spec(), OUTCOME)
    record = find_completion(storage, run_id, spec(**changes))
    assert (record.outcome if record is not None else None) == (OUTCOME if is_found else None)


def test_a_run_without_a_record_has_not_completed(storage: Storage) -> None:
    assert find_completion(storage, "uid", spec()) is None


def test_an_attempt_that_was_replaced_records_nothing(storage: Storage) -> None:
    record_completion(storage, "uid", "1", spec(), OUTCOME)
    assert not storage.exists(COMPLETION)


def test_the_record_of_a_prolonged_run_replaces_the_first(storage: Storage) -> None:
    longer = spec(training={"maxSteps": 20})
    outcome = OUTCOME.model_copy(update={"message": "trained 20 steps"})
    record_completion(storage, "uid", "2", spec(), OUTCOME)
    record_completion(storage, "uid", "2", longer, outcome)
    record = find_completion(storage, "uid", longer)
    assert record is not None
    assert record.outcome == outcome


@pytest.mark.parametrize("content", [b"{}", b"not JSON"])
def test_an_unreadable_record_is_ignored(storage: Storage, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    storage.put(COMPLETION, content)
    assert find_completion(storage, "uid", spec()) is None
    assert "completion.json is unreadable and ignored" in caplog.text


def test_a_storage_that_fails_does_not_fail_the_completed_run(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    storage.delete(OWNER)
    record_completion(storage, "uid", "2", spec(), OUTCOME)
    assert "the completion of the run is not recorded" in caplog.text
