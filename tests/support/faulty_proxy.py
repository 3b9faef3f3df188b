"""A proxy of an object storage that can refuse, delay or ignore requests, to break the storage of one run only."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Mode = Literal["healthy", "silent", "closing", "unavailable", "expired", "slow"]
SLOW_SECONDS = 1.0  # before each part of a response


def _error(status: str, code: str, message: str) -> bytes:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    headers = f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}".encode()


ANSWERS: dict[str, bytes] = {
    "unavailable": _error("503 Service Unavailable", "SlowDown", "Please reduce your request rate."),
    "expired": _error("403 Forbidden", "ExpiredToken", "The provided token has expired."),
}


@dataclass
class FaultyProxy:
    """Forwards connections to `upstream`, an HTTP endpoint, as long as it is healthy; it listens on `host`."""

    upstream: str
    host: str = "127.0.0.1"
    mode: Mode = "healthy"
    requests: dict[str, int] = field(default_factory=dict)
    """How many requests, or parts of them, arrived in each mode."""

    def __enter__(self) -> Self:
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server((self.host, 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The URL of the proxy."""
        return f"http://{self.host}:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def broken(self, mode: Mode) -> Iterator[None]:
        """Break the storage inside this block."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = "healthy"

    def _serve(self, client: socket.socket) -> None:
        upstream = urlsplit(self.upstream)
        with (
            contextlib.suppress(OSError),
            socket.create_connection((str(upstream.hostname), int(upstream.port or 80))) as backend,
        ):
            threading.Thread(target=self._forward_responses, args=(backend, client), daemon=True).start()
            while data := client.recv(1 << 16):
                self.requests[self.mode] = self.requests.get(self.mode, 0) + 1
                if answer := ANSWERS.get(self.mode):
                    self._answer(client, answer)
                    return
                if self.mode == "closing":
                    return
                while self.mode == "silent":
                    time.sleep(0.1)
                backend.sendall(data)

    def _answer(self, client: socket.socket, answer: bytes) -> None:
        """Answer, and read the rest of the request: the client may not read an answer before all of it was sent."""
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(2)
        while client.recv(1 << 16):
            pass

    def _forward_responses(self, backend: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := backend.recv(1 << 16):
                if self.mode == "slow":
                    time.sleep(SLOW_SECONDS)
                while self.mode == "silent":
                    time.sleep(0.1)
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
