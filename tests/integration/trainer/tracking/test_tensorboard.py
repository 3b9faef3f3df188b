"""TensorBoard reads the events of all attempts of a run, from every storage."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support import launch, ranks, s3

from finetune_trainer.protocol.events import CheckpointStored, Evaluated, Event, Step
from finetune_trainer.protocol.outcome import Progress, SavedCheckpoint
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage
from finetune_trainer.tracking.tensorboard import record_to_tensorboard

STORED = CheckpointStored(checkpoint=SavedCheckpoint(step=3, time="", uri=""), size_bytes=1, seconds={})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulated = EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in accumulated.Scalars(tag)] for tag in accumulated.Tags()["scalars"]}


def step(number: int, loss: float) -> Step:
    progress = Progress(step=number, total_steps=9, loss=loss, learning_rate=0.5)
    return Step(progress=progress, gradient_norm=2.0, tokens=1, samples=1, padding_ratio=0.0)


def record_attempt(storage: Storage, work_dir: Path, events: list[Event]) -> list[Event]:
    """One attempt of a run that reports these events; returns the events that it passed on."""
    passed: list[Event] = []
    with record_to_tensorboard(passed.append, storage, work_dir) as report:
        for event in events:
            report(event)
    return passed


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_later_attempt_purges_steps_after_its_checkpoint(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}/storage"
    if kind == "s3":
        server: s3.Server = request.getfixturevalue("s3_server")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        uri = server.uri("event-files")
    storage = open_storage(uri, Credentials())
    first: list[Event] = [
        Evaluated(step=0, metrics={"loss": 9.0}),
        *(step(n, 1.0 * n) for n in (1, 2, 3)),
        STORED,
        step(4, 4.0),
    ]
    assert record_attempt(storage, tmp_path / "first node", first) == first
    # The next attempt resumes from the checkpoint of step 3, on another node.
    record_attempt(
        storage, tmp_path / "second node", [step(4, 40.0), Evaluated(step=4, metrics={"loss": 5.0, "accuracy": 0.5})]
    )
    storage.child("tensorboard").download_folder(tmp_path / "all")
    curves = scalars(tmp_path / "all")
    assert curves["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert curves["evaluation/loss"] == [(0, 9.0), (4, 5.0)]
    assert curves["evaluation/accuracy"] == [(4, 0.5)]
    assert curves.keys() >= {"train/learningRate", "train/gradientNorm", "train/epoch"}


def test_uploads_after_a_checkpoint(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/storage", Credentials())
    with record_to_tensorboard(lambda event: None, storage, tmp_path) as report:
        report(step(1, 1.0))
        assert storage.list("tensorboard") == []
        report(STORED)
    assert len(storage.list("tensorboard")) == 1


def test_an_upload_failure_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "storage").touch()
    storage = open_storage(f"file://{tmp_path}/storage/below", Credentials())
    assert record_attempt(storage, tmp_path, [step(1, 1.0), STORED, step(2, 2.0)])
    assert "the event files for TensorBoard could not be stored: spec.checkpoint.storage: " in caplog.text
    assert scalars(tmp_path / "tensorboard")["train/loss"] == [(1, 1.0), (2, 2.0)]


def test_records_a_run_that_was_stopped_and_resumed(tmp_path: Path) -> None:
    document = launch.write_document(tmp_path, training={"maxSteps": 8})
    ranks.run(launch.run_rank, 1, document, {0: (signal.SIGTERM, 4)})
    [result] = ranks.run(launch.run_rank, 1, document)
    assert result.code == 0
    curves = scalars(tmp_path / "storage/tensorboard")
    assert [number for number, _ in curves["train/loss"]] == list(range(1, 9))
    assert [number for number, _ in curves["evaluation/perplexity"]] == [3, 6, 8]
    assert curves["train/loss"][-1][1] == pytest.approx(result.outcome.metrics["loss"])


def test_a_disk_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    storage, folder = open_storage(f"file://{tmp_path}/storage", Credentials()), tmp_path / "work/tensorboard"
    folder.parent.mkdir()
    folder.touch()  # no folder can be created here
    with record_to_tensorboard(lambda event: None, storage, folder.parent) as report:
        report(step(1, 1.0))
        folder.unlink()
        report(step(2, 2.0))
        report(STORED)
        report(step(3, 3.0))
    assert scalars(tmp_path / "storage/tensorboard")["train/loss"] == [(3, 3.0)]
