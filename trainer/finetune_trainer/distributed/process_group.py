"""This rank's process group and the few collectives that training uses."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from finetune_trainer.distributed.devices import choose_device
from finetune_trainer.protocol.gloo_interface import choose_gloo_interface

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""Longer than any wait: the agents find ranks that hang, and know which of them only wait for another that works."""


@dataclass(frozen=True)
class ProcessGroup:
    """One rank's view of the process group. `device` holds its model: `cuda:<local rank>`, or `cpu` without a GPU."""

    rank: int
    size: int
    local_rank: int
    processes_per_node: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which logs, reports steps and writes the common files."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum the tensor over all ranks, in place. CPU tensors use gloo and wait for no GPU."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sums(self, *numbers: float) -> list[float]:
        """Sum each number over all ranks; in float64, so counts up to 2**53 stay exact."""
        return [float(x) for x in self.all_reduce_sum(torch.tensor(numbers, dtype=torch.float64)).tolist()]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one rank; every rank gets the same answer."""
        return self.sums(float(flag))[0] > 0

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        """All ranks' rows [n, width] in rank order, and the index of this rank's first row; n may differ between ranks."""
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        ends = self.all_reduce_sum(counts).cumsum(0).tolist()
        begin = ends[self.rank] - len(rows)
        gathered = rows.new_zeros(ends[-1], *rows.shape[1:])
        gathered[begin : begin + len(rows)] = rows
        return self.all_reduce_sum(gathered), begin

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def barrier(self) -> None:
        """Wait for all ranks on the host, so that no GPU is blocked meanwhile."""
        self.sums(0.0)


def join(
    *, rank: int, size: int, local_rank: int, processes_per_node: int, master: str, timeout: timedelta = COLLECTIVE_TIMEOUT
) -> ProcessGroup:
    """Join the process group whose rank 0 listens at `master` (HOST:PORT) and configure DeepSpeed for it.

    A collective that waits longer than `timeout` fails; `timeout` must exceed the longest time that one rank works alone, such
    as preparing data. Raises torch's DistError or RuntimeError if the ranks do not meet.
    """
    # DeepSpeed creates further groups with these defaults, which are 10 minutes for NCCL.
    for default in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(distributed_c10d, default, timeout)
    device = choose_device(local_rank)
    host, _, port = master.rpartition(":")
    # DeepSpeed and accelerate read their rank from the environment.
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(processes_per_node),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
    }
    choose_gloo_interface(host)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend, init_method="env://", rank=rank, world_size=size, timeout=timeout,
        device_id=None if device.type == "cpu" else device,
    )  # fmt: skip
    _configure_deepspeed(device)
    return ProcessGroup(rank, size, local_rank, processes_per_node, device)


def leave() -> None:
    """Leave the process group; does nothing without one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def import_deepspeed() -> ModuleType:
    """Import DeepSpeed; every module that runs DeepSpeed calls this first.

    DeepSpeed selects its accelerator when it is first imported, from DS_ACCELERATOR, which `join` sets for this rank's device.
    A spare process, which imports before there is a process group, has the value of the rank that it replaces.
    """
    assert "DS_ACCELERATOR" in os.environ, (
        "DeepSpeed selects its accelerator when it is imported: call process_group.join before process_group.import_deepspeed"
    )
    import deepspeed

    return deepspeed  # type: ignore[no-any-return]


def _configure_deepspeed(device: torch.device) -> None:
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    deepspeed = import_deepspeed()
    deepspeed.utils.logger.setLevel(logging.WARNING)
    if device.type == "cpu":
        # DeepSpeed compiles its shared-memory collectives at first use, and the image has no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(verbose=False)
