"""Runs a function on the ranks of a real process group: gloo between processes of this machine.

The processes are forked from a server that has imported torch and DeepSpeed, because the imports take longer than the tests.
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
    """A rank's number, the world size and the HOST:PORT of rank 0."""

    rank: int
    size: int
    master: str


def run(target: Callable[..., Any], size: int, *arguments: Any, timeout: float = 240) -> list[Any]:
    """The result of `target(place, *arguments)` on each rank; fails with the tracebacks of the ranks that raised."""
    processes, connections = start(target, size, *arguments)
    deadline = time.monotonic() + timeout
    try:
        results = [_receive(connection, deadline) for connection in connections]
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
    failures = [f"rank {rank}:\n{text}" for rank, (ok, text) in enumerate(results) if not ok]
    assert not failures, "\n".join(failures)
    return [value for _, value in results]


def run_here(target: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """The same for a single rank, in this process: for scripts that run once, in which a server would only import all again."""
    assert size == 1
    import torch

    _set_environment()
    torch.set_num_threads(1)
    return [target(Place(0, 1, f"127.0.0.1:{free_ports(1)[0]}"), *arguments)]


def start(target: Callable[..., Any], size: int, *arguments: Any) -> tuple[list[Any], list[Connection]]:
    """Start the ranks without waiting for them.

    Returns the processes and for each a connection that receives (True, result) or (False, traceback).
    """
    _set_environment()
    _context.set_forkserver_preload(list(PRELOADED))
    master = f"127.0.0.1:{free_ports(1)[0]}"
    processes, connections = [], []
    for rank in range(size):
        receiving, sending = _context.Pipe(duplex=False)
        process = _context.Process(target=_run_target, args=(sending, target, Place(rank, size, master), arguments))
        process.start()
        sending.close()
        processes.append(process)
        connections.append(receiving)
    return processes, connections


def _set_environment() -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ["OMP_NUM_THREADS"] = "1"


def _receive(connection: Connection, deadline: float) -> tuple[bool, Any]:
    if not connection.poll(max(0.0, deadline - time.monotonic())):
        return False, "no result in time"
    try:
        return tuple(connection.recv())
    except EOFError:
        return False, "the process died"


def _run_target(connection: Connection, target: Callable[..., Any], place: Place, arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        connection.send((True, target(place, *arguments)))
    except BaseException:
        connection.send((False, traceback.format_exc()))
        raise
