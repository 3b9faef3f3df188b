"""The status of a local agent, whatever its answer looks like."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune_operator.local.job_directory import JobDirectory
from finetune_operator.local.node_process import NodeProcess


@contextmanager
def answering(response: bytes) -> Iterator[int]:
    """A server that answers one request with these bytes and closes the connection; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def node(port: int, folder: Path) -> NodeProcess:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return NodeProcess(0, JobDirectory(folder), process, port)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=["broken off", "bad chunk", "no status", "error", "no HTTP", "closed"],
)
def test_an_answer_that_breaks_off_is_no_status(response: bytes, tmp_path: Path) -> None:
    with answering(response) as port:
        assert node(port, tmp_path).status() is None


def test_reads_the_status(tmp_path: Path) -> None:
    with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{"activity":"Training"}') as port:
        status = node(port, tmp_path).status()
    assert status is not None
    assert status.activity == "Training"
