"""The reason and the message for each kind of exception."""

from __future__ import annotations

import errno

import pytest
import torch
import torch.distributed as dist

from finetune_trainer.distributed.preemption import Interrupted, Preempted, PreemptedUnsaved
from finetune_trainer.protocol.outcome import ConfigurationError, DataError, GPUError, NonFiniteLossError, Reason, StorageError
from finetune_trainer.training.failures import MAX_MESSAGE_CHARACTERS, classify_error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigurationError("spec.x: y"), Reason.INVALID_CONFIGURATION),
        (DataError("file: line"), Reason.INVALID_DATA),
        (NonFiniteLossError("step 3"), Reason.NON_FINITE_LOSS),
        (StorageError("gone"), Reason.STORAGE_UNAVAILABLE),
        (GPUError("CUDA does not start"), Reason.GPU_UNAVAILABLE),
        (Preempted("stored"), Reason.PREEMPTED),
        (PreemptedUnsaved("lost"), Reason.PREEMPTED_UNSAVED),
        (Interrupted("stopped"), Reason.PREEMPTED),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Reason.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), Reason.OUT_OF_MEMORY),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4"), Reason.RENDEZVOUS_FAILED),
        (RuntimeError("[gloo] Timed out waiting 1800000ms for recv operation to complete"), Reason.RENDEZVOUS_FAILED),
        (dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp"), Reason.RENDEZVOUS_FAILED),
        (dist.DistNetworkError("The client socket has timed out"), Reason.RENDEZVOUS_FAILED),
        (dist.DistStoreError("wait timeout after 100ms"), Reason.RENDEZVOUS_FAILED),
        (ConnectionResetError("reset"), Reason.RENDEZVOUS_FAILED),
        (TypeError("f() takes 1 argument"), Reason.INTERNAL_ERROR),
        (KeyError("x"), Reason.INTERNAL_ERROR),
        (IndexError("x"), Reason.INTERNAL_ERROR),
        (AssertionError(), Reason.INTERNAL_ERROR),
        (ModuleNotFoundError("No module named 'x'"), Reason.INTERNAL_ERROR),
        (NotImplementedError(), Reason.INTERNAL_ERROR),
        (RuntimeError("CUDA error: device-side assert triggered"), Reason.CRASHED),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.CRASHED),
        (KeyboardInterrupt(), Reason.CRASHED),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:40],
)
def test_classifies_errors(error: BaseException, reason: Reason) -> None:
    actual, message = classify_error(error)
    assert actual is reason
    assert message
    assert "\n" not in message


@pytest.mark.parametrize("field", ["microBatchSize", "gradientCheckpointing", "zeroStage", "offload"])
def test_out_of_memory_message_names_remedies(field: str) -> None:
    assert field in classify_error(torch.OutOfMemoryError("CUDA out of memory"))[1]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1405_2802365893_0>: No space left on device (28)"),
        dist.DistBackendError(
            "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled system error, NCCL version 2.29.7\nLast error:\nError while "
            "creating shared memory segment /dev/shm/nccl-WU88OE (size 9637888), error: No space left on device (28)"
        ),
        RuntimeError(
            "DataLoader worker (pid 325) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
            "shared memory. Please try to raise your shared memory limit."
        ),
        OSError(errno.ENOSPC, "No space left on device", "/dev/shm/psm_2f8a1c"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_full_shared_memory_is_neither_a_lost_peer_nor_a_full_disk(error: BaseException) -> None:
    reason, message = classify_error(error)
    assert reason is Reason.OUT_OF_MEMORY
    assert message.startswith("/dev/shm is full: raise spec.workers.sharedMemory (")


def test_shared_memory_of_a_gpu_is_not_that_of_the_pod() -> None:
    error = RuntimeError("out of resource: shared memory, Required: 151552, Hardware limit: 101376")
    assert "workers.sharedMemory" not in classify_error(error)[1]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/work/cache/prepared/0.arrow"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_names_the_scratch_volume(error: BaseException) -> None:
    reason, message = classify_error(error)
    assert reason is Reason.CRASHED
    assert message.startswith("the disk is full: raise spec.workers.scratch.size")


def test_shortens_a_long_message() -> None:
    assert len(classify_error(RuntimeError("x" * 10_000))[1]) == MAX_MESSAGE_CHARACTERS
