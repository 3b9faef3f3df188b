"""The agent's HTTP server: /metrics for Prometheus, /progress for the operator, /healthz for the kubelet."""

from __future__ import annotations

import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.exposition import choose_encoder

from finetune_trainer.agent.monitor import Monitor


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, family: socket.AddressFamily, port: int, monitor: Monitor) -> None:
        self.monitor = monitor
        self.address_family = family
        super().__init__(("", port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer's own would ask the DNS for this host's full name, which nobody reads and which may take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # a client that says nothing holds a thread no longer

    def do_GET(self) -> None:
        monitor = self.server.monitor
        match self.path.split("?")[0]:
            case "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, kind, encode(monitor.metrics.registry))
            case "/progress":
                text = monitor.status().model_dump_json(by_alias=True, exclude_none=True)
                self._answer(HTTPStatus.OK, "application/json", text.encode())
            case "/healthz":
                complaint = monitor.complaint()
                status = HTTPStatus.OK if complaint is None else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, "text/plain; charset=utf-8", (complaint or "ok").encode())
            case _:
                text = "there is /metrics, /progress and /healthz"
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", text.encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: a line for each scrape would bury the training log."""


def serve(port: int, monitor: Monitor) -> int:
    """Answer on all addresses, IPv4 and IPv6, until the process ends; the port, which port 0 leaves to the system."""
    server = _bound(port, monitor)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return int(server.server_address[1])


def _bound(port: int, monitor: Monitor) -> _Server:
    if socket.has_dualstack_ipv6():
        try:
            return _Server(socket.AF_INET6, port, monitor)
        except OSError:  # the kernel knows IPv6, the container has it turned off; a taken port fails below once more
            pass
    return _Server(socket.AF_INET, port, monitor)
