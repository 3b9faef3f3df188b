"""Faults of the object storage and of checkpoints in it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.cluster_run import CHECKPOINT_EVERY, ClusterRun
from tests.support.faulty_proxy import FaultyProxy, Mode
from tests.support.reliability import Measure

from finetune_trainer.checkpoint.manifest import committed_steps, read_manifest


@pytest.mark.parametrize(
    ("mode", "case"),
    [
        pytest.param("silent", "the storage does not answer", id="silent"),
        pytest.param("unavailable", "the storage answers 503", id="503"),
        pytest.param("expired", "the storage rejects the credentials as expired", id="expired credentials"),
    ],
)
def test_storage_outage(run: ClusterRun, measure: Measure, storage_proxy: FaultyProxy, mode: Mode, case: str) -> None:
    """Training goes on, the job says that it has no new checkpoints, and stores one soon after the outage."""
    pods = run.uids()
    with measure.fault(20, case, run, restarts=0):
        with storage_proxy.broken(mode):
            run.wait(
                "CheckpointHealthy=False", lambda: run.condition("CheckpointHealthy")[:2] == ("False", "CheckpointSaveFailed")
            )
            stored = committed_steps(run.storage)[0]
            run.wait_for_steps(2 * CHECKPOINT_EVERY)
            assert committed_steps(run.storage)[0] == stored
        run.wait("CheckpointHealthy=True", lambda: run.condition("CheckpointHealthy")[0] == "True")
    assert run.uids() == pods


def test_slow_storage(run: ClusterRun, measure: Measure, storage_proxy: FaultyProxy) -> None:
    """Checkpoints take longer and training does not wait for them."""
    with measure.fault(20, "the storage is slow", run, restarts=0), storage_proxy.broken("slow"):
        stored = committed_steps(run.storage)[0]
        run.wait("a checkpoint", lambda: committed_steps(run.storage)[0] > stored)


def test_killed_during_upload(run: ClusterRun, measure: Measure, storage_proxy: FaultyProxy) -> None:
    """A checkpoint that was being uploaded is never used."""
    with measure.fault(17, "SIGKILL of a rank during an upload", run, steps_lost=4 * CHECKPOINT_EVERY):
        with storage_proxy.broken("silent"):
            stored = committed_steps(run.storage)[0]
            run.wait_for_steps(CHECKPOINT_EVERY + 1)
            run.signal_rank(1, signal.SIGKILL)
            assert committed_steps(run.storage)[0] == stored
        run.wait("a newer checkpoint", lambda: committed_steps(run.storage)[0] > stored, seconds=240)


def test_flipped_bit(run: ClusterRun, measure: Measure, storage_proxy: FaultyProxy) -> None:
    """A damaged checkpoint is rejected by its hash, and the one before is used."""

    def flip(path: str) -> None:
        content = bytearray(run.storage.get(path))
        content[len(content) // 2] ^= 1
        run.storage.put(path, bytes(content))

    _damage(run, measure, storage_proxy, 18, "a bit flips in the newest checkpoint", flip)


def test_missing_file(run: ClusterRun, measure: Measure, storage_proxy: FaultyProxy) -> None:
    """A checkpoint without the part of a rank is rejected, and the one before is used."""
    _damage(run, measure, storage_proxy, 19, "the file of a rank is missing in the newest checkpoint", run.storage.delete)


def _damage(
    run: ClusterRun, measure: Measure, storage_proxy: FaultyProxy, number: int, case: str, damage: Callable[[str], object]
) -> None:
    """Damage a file of the newest checkpoint, and replace the pod that has a copy of it."""
    run.wait("two checkpoints", lambda: len(committed_steps(run.storage)) > 1)
    # Nothing is stored while the storage is unavailable, which lasts until the new pod runs.
    with measure.fault(number, case, run, steps_lost=20 * CHECKPOINT_EVERY) as injection:
        with storage_proxy.broken("unavailable"):  # no newer checkpoint may replace the damaged one
            run.wait("a failed save", lambda: run.condition("CheckpointHealthy")[0] == "False")
            step = committed_steps(run.storage)[0]
            manifest = read_manifest(run.storage, step)
            assert manifest is not None
            damage(f"{manifest.folder}/mp_rank_00_model_states.pt")
            deleted, ranks = run.uids()[0], run.rank_pids(0)
            run.delete_pod(0, "--grace-period=0", "--force")  # a new pod has no copy of the checkpoint on its node
            run.wait_for_new_pod(0, deleted)
            # The processes of a pod that is deleted by force live on for a moment and still try to commit a newer checkpoint.
            run.wait("the end of the old rank", lambda: not any(Path(f"/proc/{pid}").exists() for pid in ranks))
        run.wait("a newer checkpoint", lambda: max(committed_steps(run.storage), default=0) > step, seconds=240)
    resumed = [entry.step for entry in run.log.entries if entry.is_resume and entry.time > injection.time]
    assert resumed[0] < step, f"the run was resumed from step {resumed[0]}, and the damaged checkpoint is that of step {step}"
    rejected = [entry.path for entry in run.storage.list("rejected")]
    assert [path for path in rejected if f"step-{step:08}" in path], rejected
