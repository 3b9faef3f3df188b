"""`python -m finetune_trainer.agent.fork_server`: a process with the imports of a rank, which forks ranks upon request.

Importing the libraries takes most of a restart in place. The agent starts one fork server per node once the ranks train. It
imports the modules that a rank has recorded, at a low priority, and then answers requests on a Unix socket:

    {"arguments": [...], "agent": PID} with two descriptors: the rank's telemetry pipe, and a pipe that starts it
    {"pid": PID}

A rank must be a child of the agent, whose exit status the agent reads, so it is forked by a process between that exits at once:
the kernel then makes the agent its parent (`guard.adopt_orphans`). It starts only when the agent writes to its pipe. If the
agent gives up on the request and closes the pipe, the rank exits.

Nothing may exist before the fork that does not survive it: no thread, and no connection to a GPU's driver. Both are checked.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from finetune_trainer.agent import guard
from finetune_trainer.protocol.imports import ImportRecord

MAX_MESSAGE_BYTES = 1 << 16
_NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"  # makes torch count GPUs without starting CUDA
# A process that has started CUDA, ROCm or their equivalent on WSL has opened one of these; NVML opens none of them.
_GPU_SESSIONS = ("/dev/nvidia-uvm", "/dev/kfd", "/dev/dxg")
_FORK_SAFE_THREADS = ("jemalloc_bg_thd",)  # pyarrow's allocator prepares for forks


class NotForkableError(Exception):
    """A process forked from this one would not work."""


def main() -> None:
    """Import the modules of the record, and fork ranks until the socket is closed."""
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.agent.fork_server", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--imports", type=Path, required=True, help="the record that a rank has left")
    parser.add_argument("--rank-module", required=True)
    parser.add_argument("--niceness", type=int, required=True, help="of the thread that imports")
    options = parser.parse_args()
    connection = socket.socket(fileno=options.socket_fd)
    started = time.monotonic()
    try:
        _import_in_thread(ImportRecord.read(options.imports), options.niceness)
        _require_forkable()
    except Exception as error:
        _send(connection, {"error": str(error) or type(error).__name__})
        return
    # Collections would write to the pages of all imported objects, and so copy them.
    gc.collect()
    gc.freeze()
    _send(connection, {"seconds": time.monotonic() - started})
    _serve(connection, options.rank_module)


def _import_in_thread(record: ImportRecord, niceness: int) -> None:
    """Import the modules in a thread of low priority: a process could not raise its priority again, but a thread may end."""
    failure: list[Exception] = []

    def run() -> None:
        # Linux has a niceness per thread.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        try:
            import_modules(record)
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="imports")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def import_modules(record: ImportRecord) -> None:
    """Import every module of the record that can be imported by its name; the others were made in another way."""
    if record.accelerator:
        os.environ.setdefault("DS_ACCELERATOR", record.accelerator)
    had_check = os.environ.get(_NVML_CHECK)
    os.environ[_NVML_CHECK] = "1"
    logging.disable(logging.WARNING)  # the ranks have logged what their imports have to say
    try:
        with _known_capabilities(record.capabilities), _silent_warnings():
            for name in record.modules:
                if name not in sys.modules:
                    with contextlib.suppress(ImportError):
                        importlib.import_module(name)
    finally:
        logging.disable(logging.NOTSET)
        if had_check is None:
            del os.environ[_NVML_CHECK]
        else:
            os.environ[_NVML_CHECK] = had_check


@contextlib.contextmanager
def _known_capabilities(capabilities: list[tuple[int, int]]) -> Iterator[None]:
    """Within this context the GPUs' capabilities are those of the record; torch would start CUDA to read them."""
    if not capabilities:
        yield
        return
    import torch

    read = torch.cuda.get_device_capability

    def recorded(device: Any = None) -> tuple[int, int]:
        index = getattr(device, "idx", getattr(device, "index", device))
        return capabilities[index if isinstance(index, int) and index >= 0 else 0]

    torch.cuda.get_device_capability = recorded
    try:
        yield
    finally:
        torch.cuda.get_device_capability = read


@contextlib.contextmanager
def _silent_warnings() -> Iterator[None]:
    """Show no warnings within this context; filters that libraries add remain, as they do in a rank."""
    show = warnings.showwarning
    warnings.showwarning = lambda *_, **__: None
    try:
        yield
    finally:
        warnings.showwarning = show


def _require_forkable() -> None:
    """Raise NotForkableError if something in this process would not survive a fork."""
    # OpenBLAS stops its threads before a fork, so that those which remain after one do not know of forks.
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    names = [_thread_name(thread) for thread in Path("/proc/self/task").iterdir() if thread.name != str(os.getpid())]
    threads = sorted(name for name in names if name and name not in _FORK_SAFE_THREADS)
    if threads:
        raise NotForkableError(f"the imported libraries run threads that a fork would lose ({', '.join(threads)})")
    opened = {_target(link) for link in Path("/proc/self/fd").iterdir()}
    sessions = [device for device in _GPU_SESSIONS if device in opened]
    torch = sys.modules.get("torch")
    if sessions or (torch is not None and torch.cuda.is_initialized()):
        raise NotForkableError("an imported library has started the GPU's driver, which does not survive a fork")


def _thread_name(thread: Path) -> str:
    try:
        return (thread / "comm").read_text().strip()
    except OSError:  # it has ended
        return ""


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _serve(connection: socket.socket, rank_module: str) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 2)
        if not message:
            return
        request = json.loads(message)
        pid = _fork_rank(connection, rank_module, request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _send(connection, {"pid": pid})


def _fork_rank(connection: socket.socket, rank_module: str, request: dict[str, Any], telemetry: int, start: int) -> int:
    """Fork a rank whose parent is the agent; returns its pid."""
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        rank = os.fork()
        if rank == 0:
            connection.close()
            for descriptor in (reading, writing):
                os.close(descriptor)
            _run_rank(rank_module, request["arguments"], request["agent"], telemetry, start)
        os.setpgid(rank, rank)  # before the agent learns the pid, which is also the id of the group that it kills
        os.write(writing, str(rank).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(between, 0)
    with os.fdopen(reading, "rb") as pipe:
        return int(pipe.read())


def _run_rank(rank_module: str, arguments: list[str], agent: int, telemetry: int, start: int) -> NoReturn:
    """Become a rank, once the agent says so."""
    code = 1
    try:
        if os.read(start, 1):
            os.close(start)
            guard.die_with_parent(signal.SIGKILL, agent)
            _seed_copies()
            guard.run(rank_module, [*arguments, "--telemetry-fd", str(telemetry)])
            code = 0
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _seed_copies() -> None:
    """Give this process random numbers of its own: forks of one process would all draw the same ones.

    Python's own generator does this by itself, and torch's starts from a fixed seed in every process.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _exit_code(end: SystemExit) -> int:
    """The exit code of a process that ends by this exception."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return 1


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.send(json.dumps(message).encode())


if __name__ == "__main__":
    main()
