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
        # HTTPServer.server_bind would look up this host's full name in the DNS, which is not used and may take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # seconds that a client without a request may hold a thread

    def do_GET(self) -> None:
        monitor = self.server.monitor
        match self.path.split("?")[0]:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, encode(monitor.metrics.registry))
            case "/progress":
                text = monitor.status().model_dump_json(by_alias=True, exclude_none=True)
                self._answer(HTTPStatus.OK, "application/json", text.encode())
            case "/healthz":
                reason = monitor.unready_reason()
                status = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, "text/plain; charset=utf-8", (reason or "ok").encode())
            case _:
                text = "not found: the paths are /metrics, /progress and /healthz"
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", text.encode())

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a line per scrape would bury the training log."""


def serve(port: int, monitor: Monitor) -> int:
    """Serve on all addresses, IPv4 and IPv6, until the process ends; returns the port, which the system chooses for port 0."""
    server = _create_server(port, monitor)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return int(server.server_address[1])


def _create_server(port: int, monitor: Monitor) -> _Server:
    if socket.has_dualstack_ipv6():
        try:
            return _Server(socket.AF_INET6, port, monitor)
        except OSError:  # IPv6 may be disabled in the container; if the port is taken, the next line fails too
            pass
    return _Server(socket.AF_INET, port, monitor)
