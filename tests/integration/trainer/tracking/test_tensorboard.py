"""TensorBoard reads what a run recorded, over all its lives, wherever the checkpoints are."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support import launch, ranks, s3

from finetune_trainer.protocol.events import CheckpointStored, Evaluated, Event, Step
from finetune_trainer.protocol.outcome import Progress, SavedCheckpoint
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.tracking.tensorboard import record_to_tensorboard

STORED = CheckpointStored(checkpoint=SavedCheckpoint(step=3, time="", uri=""), size_bytes=1, seconds={})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulated = EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in accumulated.Scalars(tag)] for tag in accumulated.Tags()["scalars"]}


def step(number: int, loss: float) -> Step:
    progress = Progress(step=number, total_steps=9, loss=loss, learning_rate=0.5)
    return Step(progress=progress, gradient_norm=2.0, tokens=1, samples=1, padding_ratio=0.0)


def live(storage: Storage, work_dir: Path, events: list[Event]) -> list[Event]:
    """One life of a run that reports these events; what it passed on."""
    passed: list[Event] = []
    with record_to_tensorboard(passed.append, storage, work_dir) as report:
        for event in events:
            report(event)
    return passed


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_later_life_takes_back_what_was_not_kept(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}/storage"
    if kind == "s3":
        server: s3.Server = request.getfixturevalue("s3_server")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        uri = server.uri("event-files")
    storage = Storage.open(uri, Credentials())
    first: list[Event] = [
        Evaluated(step=0, metrics={"loss": 9.0}),
        *(step(n, 1.0 * n) for n in (1, 2, 3)),
        STORED,
        step(4, 4.0),
    ]
    assert live(storage, tmp_path / "one node", first) == first
    # The checkpoint of step 3 is where the next life begins, on another node.
    live(storage, tmp_path / "another", [step(4, 40.0), Evaluated(step=4, metrics={"loss": 5.0, "accuracy": 0.5})])
    storage.child("tensorboard").download_folder(tmp_path / "all")
    found = scalars(tmp_path / "all")
    assert found["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert found["evaluation/loss"] == [(0, 9.0), (4, 5.0)]
    assert found["evaluation/accuracy"] == [(4, 0.5)]
    assert found.keys() >= {"train/learningRate", "train/gradientNorm", "train/epoch"}


def test_a_checkpoint_brings_them_to_the_storage(tmp_path: Path) -> None:
    storage = Storage.open(f"file://{tmp_path}/storage", Credentials())
    with record_to_tensorboard(lambda event: None, storage, tmp_path) as report:
        report(step(1, 1.0))
        assert storage.list("tensorboard") == []
        report(STORED)
    assert len(storage.list("tensorboard")) == 1


def test_a_storage_that_refuses_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "storage").touch()
    storage = Storage.open(f"file://{tmp_path}/storage/below", Credentials())
    assert live(storage, tmp_path, [step(1, 1.0), STORED, step(2, 2.0)])
    assert "the event files for TensorBoard could not be stored: spec.checkpoint.storage: " in caplog.text
    assert scalars(tmp_path / "tensorboard")["train/loss"] == [(1, 1.0), (2, 2.0)]


def test_a_run_that_was_broken_off_and_resumed(tmp_path: Path) -> None:
    document = launch.prepare(tmp_path, training={"maxSteps": 8})
    ranks.run(launch.live, 1, document, {0: (signal.SIGTERM, 4)})
    [heard] = ranks.run(launch.live, 1, document)
    assert heard.code == 0
    found = scalars(tmp_path / "storage/tensorboard")
    assert [number for number, _ in found["train/loss"]] == list(range(1, 9))
    assert [number for number, _ in found["evaluation/perplexity"]] == [3, 6, 8]
    assert found["train/loss"][-1][1] == pytest.approx(heard.outcome.metrics["loss"])
