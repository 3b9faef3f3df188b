"""The proxy that breaks an object storage."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.support.faulty_proxy import SLOW_SECONDS, FaultyProxy, Mode


class Upstream(BaseHTTPRequestHandler):
    """Answers a PUT with the number of bytes that it got."""

    def do_PUT(self) -> None:
        body = str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
            yield proxy
        server.shutdown()


def put(proxy: FaultyProxy, *, timeout: float = 5) -> bytes:
    """Send a megabyte through the proxy, and return the answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(proxy.endpoint, b"x" * (1 << 20), method="PUT")
    with opener.open(request, timeout=timeout) as response:
        return bytes(response.read())


@pytest.mark.parametrize(
    ("mode", "code", "text"), [("unavailable", 503, b"<Code>SlowDown</Code>"), ("expired", 403, b"<Code>ExpiredToken</Code>")]
)
def test_answers_with_errors_of_s3(proxy: FaultyProxy, mode: Mode, code: int, text: bytes) -> None:
    with proxy.broken(mode):
        with pytest.raises(urllib.error.HTTPError) as raised:
            put(proxy)
        assert raised.value.code == code
        assert text in raised.value.read()
    assert put(proxy) == b"1048576"


def test_does_not_answer(proxy: FaultyProxy) -> None:
    with proxy.broken("silent"), pytest.raises(TimeoutError):
        put(proxy, timeout=0.5)
    with proxy.broken("closing"), pytest.raises((urllib.error.URLError, ConnectionError)):
        put(proxy)
    assert put(proxy) == b"1048576"


def test_answers_late(proxy: FaultyProxy) -> None:
    started = time.monotonic()
    with proxy.broken("slow"):
        assert put(proxy) == b"1048576"
    assert time.monotonic() - started >= SLOW_SECONDS
