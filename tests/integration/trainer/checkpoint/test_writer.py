"""Signs of life of a checkpoint that is being stored, and what is reported when the disk is full."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest
import torch

from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.files import _HashingFile
from finetune_trainer.checkpoint.manifest import File, Manifest
from finetune_trainer.checkpoint.snapshot import HostMemory
from finetune_trainer.checkpoint.writer import PendingSave, Writer, WriterTimeouts
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.events import CheckpointFailed, Event
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.registry import open_storage

ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))


def test_storing_is_a_sign_of_life_only_for_who_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(f"file://{tmp_path}/storage", Credentials())
    storage.put("attempt", b"first")
    context = CheckpointContext(storage, {}, ALONE, "first", tmp_path, report=lambda event: None)

    def create_manifest(step: int, files: list[File]) -> Manifest:
        return Manifest(
            step=step, attempt="first", world_size=1, zero_stage=0, precision="Float32", identity={},
            files=files, time="2026-01-01T00:00:00Z", deepspeed="", torch="",
        )  # fmt: skip

    def write_slowly(self: _HashingFile, chunk: memoryview, write: object = _HashingFile._write_all) -> None:
        time.sleep(0.1)
        assert callable(write)
        write(self, chunk)

    monkeypatch.setattr(_HashingFile, "_write_all", write_slowly)
    monkeypatch.setattr(heartbeat, "MIN_SECONDS", 0.05)
    writer = Writer(context, HostMemory(), create_manifest, keep_last=2, timeouts=WriterTimeouts())
    save = PendingSave(1, {"weights.pt": torch.zeros(8 << 20)}, blocked=0.0)
    beats: list[float] = []
    with heartbeat.relayed_to(lambda: beats.append(time.monotonic())):
        writer.submit(save)
        time.sleep(0.3)
        assert beats == []  # as while training, which has signs of life of its own
        save.work.wait(save.done)
    assert len(beats) >= 3
    assert save.error is None


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["small", "larger than a buffer"])
def test_a_full_disk_is_reported_with_its_remedy(tmp_path: Path, size: int) -> None:
    storage, reported = open_storage(f"s3://bucket/{uuid.uuid4().hex}", Credentials()), list[Event]()
    context = CheckpointContext(storage, {}, ALONE, "first", tmp_path, report=reported.append)
    writer = Writer(context, HostMemory(), _no_manifest, keep_last=1, timeouts=WriterTimeouts())
    context.upload_dir.mkdir(parents=True)
    (context.upload_dir / "weights.pt.partial").symlink_to("/dev/full")
    save = PendingSave(5, {"weights.pt": torch.zeros(size)}, blocked=0.0)
    writer._run(save)
    [failure] = reported
    assert isinstance(failure, CheckpointFailed)
    assert (failure.step, failure.message) == (
        5, "No space left on device (local disk): raise spec.workers.scratch.size, or make room on the disk of /work",
    )  # fmt: skip


def _no_manifest(step: int, files: list[File]) -> Manifest:
    raise AssertionError("nothing is committed")
