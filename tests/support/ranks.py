"""Runs a function as the ranks of a real process group, gloo between processes of this machine.

The processes are forked from a server that has imported torch and DeepSpeed once: importing takes longer than the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from finetune_trainer.agent.ports import free_ports

PRELOADED = ("torch", "deepspeed", "transformers", "peft", "matplotlib.figure", "tests.support.preload")
_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Place:
    """Where a rank stands; `master` is the address its group meets at."""

    rank: int
    size: int
    master: str


def run(target: Callable[..., Any], size: int, *arguments: Any, timeout: float = 240) -> list[Any]:
    """What `target(place, *arguments)` returned on each rank; fails with the traceback of the first rank that raised."""
    processes, ends = start(target, size, *arguments)
    deadline = time.monotonic() + timeout
    try:
        results = [_result(end, deadline) for end in ends]
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
    failures = [f"rank {rank}:\n{text}" for rank, (ok, text) in enumerate(results) if not ok]
    assert not failures, "\n".join(failures)
    return [value for _, value in results]


def start(target: Callable[..., Any], size: int, *arguments: Any) -> tuple[list[Any], list[Connection]]:
    """The same without waiting: the processes, and for each the connection that brings (whether it returned, value or text)."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ["OMP_NUM_THREADS"] = "1"
    _context.set_forkserver_preload(list(PRELOADED))
    master = f"127.0.0.1:{free_ports(1)[0]}"
    processes, ends = [], []
    for rank in range(size):
        mine, theirs = _context.Pipe(duplex=False)
        process = _context.Process(target=_enter, args=(theirs, target, Place(rank, size, master), arguments))
        process.start()
        theirs.close()
        processes.append(process)
        ends.append(mine)
    return processes, ends


def _result(end: Connection, deadline: float) -> tuple[bool, Any]:
    if not end.poll(max(0.0, deadline - time.monotonic())):
        return False, "no answer in time"
    try:
        return tuple(end.recv())
    except EOFError:
        return False, "died without a word"


def _enter(end: Connection, target: Callable[..., Any], place: Place, arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        end.send((True, target(place, *arguments)))
    except BaseException:
        end.send((False, traceback.format_exc()))
        raise
