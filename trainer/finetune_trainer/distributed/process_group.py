"""Where this rank stands among the others, and the few collectives that the loop itself needs."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class ProcessGroup:
    """One rank's place. `device` is where its model lives: `cuda:<local rank>`, or `cpu` where there is no GPU."""

    rank: int
    size: int
    local_rank: int
    processes_per_node: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks for all: it logs, reports steps and writes what is common."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place. Tensors on the host travel by gloo and wait for no GPU."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sums(self, *numbers: float) -> list[float]:
        """Each number's sum over all ranks; doubles, so counts up to 2**53 stay exact."""
        return [float(x) for x in self.all_reduce_sum(torch.tensor(numbers, dtype=torch.float64)).tolist()]

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on at least one rank: the same answer on all of them."""
        return self.sums(float(flag))[0] > 0

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        """All ranks' rows [n, width] in the order of the ranks, and where one's own begin; n may be another on each."""
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        begins = self.all_reduce_sum(counts).cumsum(0).tolist()
        begin = begins[self.rank] - len(rows)
        gathered = rows.new_zeros(begins[-1], *rows.shape[1:])
        gathered[begin : begin + len(rows)] = rows
        return self.all_reduce_sum(gathered), begin

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def barrier(self) -> None:
        """Wait for all ranks; on the host, so that no GPU is held meanwhile."""
        self.sums(0.0)


def join(
    *, rank: int, size: int, local_rank: int, processes_per_node: int, master: str, timeout: timedelta = timedelta(hours=1)
) -> ProcessGroup:
    """Enter the process group whose rank 0 listens at `master` (HOST:PORT) and prepare DeepSpeed for it.

    A collective that waits longer than `timeout` fails; it must exceed the longest stretch that one rank may be busy alone,
    such as preparing data. Raises torch's DistError or RuntimeError if the group does not come about.
    """
    device = choose_device(local_rank)
    host, _, port = master.rpartition(":")
    # DeepSpeed and accelerate read their place from the environment.
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(processes_per_node),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
    }
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend, init_method="env://", rank=rank, world_size=size, timeout=timeout,
        device_id=None if device.type == "cpu" else device,
    )  # fmt: skip
    _prepare_deepspeed(device)
    return ProcessGroup(rank, size, local_rank, processes_per_node, device)


def leave() -> None:
    """Close the process group; safe when there is none."""
    if dist.is_initialized():
        dist.destroy_process_group()


def choose_device(local_rank: int) -> torch.device:
    """This rank's GPU, from now on the one that this process means by cuda, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _prepare_deepspeed(device: torch.device) -> None:
    # DeepSpeed chooses its accelerator when it is imported, hence the import down here.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    if device.type == "cpu":
        # Its shared-memory collectives are compiled at first use, which an image without a compiler cannot do.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(verbose=False)
