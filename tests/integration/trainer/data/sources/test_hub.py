"""hf:// addresses: the real clients of the hub against a local server that imitates it.

The clients read the hub's endpoint when they are imported, so that the cases run in another process.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_tests"
FILES: dict[str, dict[str, bytes]] = {
    "models/org/model": {"config.json": b'{"model_type": "gpt2"}', "tokenizer.json": b"{}", "weights.h5": b"not wanted"},
    "datasets/org/data": {
        "train.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
        "validation.jsonl": b'{"text": "held out"}\n',
    },
    "datasets/org/several": {
        "README.md": b"---\nconfigs:\n- config_name: first\n  data_files: first.jsonl\n- config_name: second\n"
        b"  data_files: second.jsonl\n---\n",
        "first.jsonl": b'{"text": "of the first"}\n',
        "second.jsonl": b'{"text": "of the second"}\n',
    },
}
PRIVATE = "models/org/private"


class Hub(BaseHTTPRequestHandler):
    """Answers the requests of a download."""

    requests: ClassVar[list[str]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = urlsplit(self.path).path.strip("/")
        self.requests.append(f"{self.command} {path}")
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if path.startswith("api/"):
            return self._api(path.removeprefix("api/"), body)
        repository, _, rest = path.partition("/resolve/")
        repository = repository if repository.startswith("datasets/") else f"models/{repository}"
        revision, _, name = rest.partition("/")
        if revision not in ("main", COMMIT):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        content = FILES.get(repository, {}).get(name)
        if content is None:
            code = "EntryNotFound" if repository in FILES else "RepoNotFound"
            return self._send(404, b"", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
        return self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _api(self, path: str, body: bytes) -> None:
        kind, organization, name, *rest = [*path.split("/"), "", ""][: max(3, path.count("/") + 1)]
        repository = f"{kind}/{organization}/{name}"
        if repository not in FILES:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if len(rest) > 1 and rest[1] not in ("main", COMMIT):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        entries = [
            {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for file, content in FILES[repository].items()
        ]
        match rest[:1]:
            case ["tree"]:
                return self._json(entries)
            case ["paths-info"]:
                paths = json.loads(body)["paths"] if body.startswith(b"{") else []
                return self._json([entry for entry in entries if entry["path"] in paths])
            case _:
                siblings = [{"rfilename": file} for file in FILES[repository]]
                return self._json({"id": f"{organization}/{name}", "sha": COMMIT, "siblings": siblings, "tags": []})

    def _json(self, answer: Any) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


SCRIPT = """
import json, sys
from pathlib import Path
from finetune_trainer import config
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.protocol.outcome import TrainerError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import TOKENIZER_FILES, localize

where = {"cache": Path(sys.argv[1]), "credentials": Credentials(Path(sys.argv[2]))}
for case in json.loads(sys.argv[3]):
    try:
        if case.pop("kind") == "model":
            folder = localize(case.pop("uri"), field="spec.model.source", patterns=TOKENIZER_FILES, **where, **case)
            answer = sorted(path.name for path in folder.iterdir())
        else:
            resolver = SourceResolver(config.ObjectiveSpec(), **where)
            source = resolver.resolve(config.DatasetConfig(**case), "spec.data.train[0].source")
            answer = [(row.values["text"], row.origin) for row in source.rows()]
    except TrainerError as error:
        answer = f"{type(error).__name__}: {error}"
    print("ANSWER", json.dumps(answer))
"""


def run_cases(cases: list[dict[str, Any]], folder: Path, endpoint: str) -> list[Any]:
    (folder / "secrets" / "hub").mkdir(parents=True, exist_ok=True)
    (folder / "secrets" / "hub" / "HF_TOKEN").write_text(TOKEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    arguments = [str(folder / "cache"), str(folder / "secrets"), json.dumps(cases)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line.removeprefix("ANSWER ")) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]


def test_downloads_models_and_datasets(hub: str, tmp_path: Path) -> None:
    name = "spec.data.train[0].source"
    table: list[tuple[dict[str, Any], Any]] = [
        ({"kind": "model", "uri": "hf://org/model", "secret": "hub"}, ["config.json", "tokenizer.json"]),
        ({"kind": "model", "uri": "hf://org/model", "secret": "hub", "revision": COMMIT}, ["config.json", "tokenizer.json"]),
        (
            {"kind": "model", "uri": "hf://org/model", "secret": "hub", "revision": "gone"},
            "ConfigurationError: spec.model.revision: hf://org/model has no such revision: correct or remove it",
        ),
        (
            {"kind": "model", "uri": "hf://org/nothing", "secret": "hub"},
            "ConfigurationError: spec.model.source: the hub has no hf://org/nothing, or it is private: correct the name, or "
            "name a Secret with HF_TOKEN in spec.model.credentials",
        ),
        (
            {"kind": "model", "uri": "hf://a/b/c", "secret": "hub"},
            "ConfigurationError: spec.model.source: hf://a/b/c is not a repository name: write hf://ORGANIZATION/NAME",
        ),
        (
            {"kind": "model", "uri": "hf://org/model", "secret": "absent"},
            "ConfigurationError: spec.model.credentials: Secret absent does not exist: create it in the job's namespace, or "
            "correct the name",
        ),
        (
            {"kind": "data", "source": "hf://org/data", "credentials": "hub"},
            [["one", "hf://org/data[train]:1"], ["two", "hf://org/data[train]:2"]],
        ),
        (
            {"kind": "data", "source": "hf://org/data", "credentials": "hub", "split": "validation"},
            [["held out", "hf://org/data[validation]:1"]],
        ),
        (
            {"kind": "data", "source": "hf://org/data", "credentials": "hub", "columns": {"text": "body"}},
            "DataError: hf://org/data[train]:1: there is no column body (there are: text): set columns.text to one of them",
        ),
        (
            {"kind": "data", "source": "hf://org/data", "credentials": "hub", "data_files": ["val*.jsonl"]},
            [["held out", "hf://org/data[train]:1"]],
        ),
        (
            {"kind": "data", "source": "hf://org/data", "credentials": "hub", "data_files": ["gone.jsonl"]},
            "ConfigurationError: spec.data.train[0].dataFiles: neither hf://org/data nor the cache has gone.jsonl: correct "
            "the paths or patterns",
        ),
        (
            {"kind": "data", "source": "hf://org/several", "credentials": "hub"},
            "ConfigurationError: spec.data.train[0].subset: hf://org/several has the subsets 'first', 'second': name one "
            "of them",
        ),
        (
            {"kind": "data", "source": "hf://org/several", "credentials": "hub", "subset": "third"},
            "ConfigurationError: spec.data.train[0].subset: hf://org/several has the subsets 'first', 'second': name one "
            "of them",
        ),
        (
            {"kind": "data", "source": "hf://org/several", "credentials": "hub", "subset": "second"},
            [["of the second", "hf://org/several/second[train]:1"]],
        ),
        (
            {"kind": "data", "source": "hf://org/data", "credentials": "hub", "split": "test"},
            f'ConfigurationError: {name}: cannot load split test of hf://org/data (Unknown split "test". '
            "Should be one of ['train', 'validation'].)",
        ),
        (
            {"kind": "data", "source": "hf://org/nothing", "credentials": "hub"},
            f"ConfigurationError: {name}: the hub has no hf://org/nothing that may be read: correct the name, or name a Secret "
            "with HF_TOKEN in spec.data.train[0].credentials",
        ),
    ]
    answers = run_cases([case for case, _ in table], tmp_path, hub)
    assert answers == [answer for _, answer in table]


def test_reports_an_unreachable_hub(tmp_path: Path) -> None:
    cases = [{"kind": "model", "uri": "hf://org/model", "secret": "hub"}, {"kind": "data", "source": "hf://org/data"}]
    answers = run_cases(cases, tmp_path, "http://127.0.0.1:9")
    assert [answer.partition(" from the hub")[0] for answer in answers] == [
        "StorageError: spec.model.source: could not read hf://org/model",
        "StorageError: spec.data.train[0].source: could not read hf://org/data",
    ]
