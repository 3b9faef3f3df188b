"""A new storage scheme takes one entry in the table of schemes and one module that implements it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import finetune_trainer

ENTRY = 'StorageScheme("memory", "NAME", "memory", credential_keys=("MEMORY_TOKEN",)),'
IMPLEMENTATION = '''
from collections import defaultdict

from obstore.store import MemoryStore

from finetune_trainer.storage.backend import Backend
from finetune_trainer.storage.base import Storage
from finetune_trainer.storage.copying import copy_matching_objects

STORES = defaultdict(MemoryStore)


class MemoryStorage(Storage):
    """Objects in this process's memory."""

    availability_remedy = "that the process is alive"


class MemoryBackend(Backend):
    """Opens stores by name, for owners of a token."""

    def open(self, uri, credentials, secret, field):
        assert credentials.read_for(secret, field)["MEMORY_TOKEN"] == "secret"
        store = STORES[uri]
        return MemoryStorage(uri, field, store, store)

    def local_path(self, uri, field):
        return None

    def localize(self, request):
        storage = self.open(request.uri, request.credentials, request.secret, request.field)
        return copy_matching_objects(storage, request)


BACKEND = MemoryBackend()
'''
USE = """
from pathlib import Path

from pydantic import TypeAdapter

from finetune_operator.codegen.crd import build_crd
from finetune_trainer.config.base import ReadableURI, WritableURI
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.registry import open_storage
from finetune_trainer.storage.download import localize

for uri_type in (ReadableURI, WritableURI):
    assert TypeAdapter(uri_type).validate_python("memory://run") == "memory://run"
assert "begin the URI with memory://, " in str(build_crd())

storage = open_storage("memory://run", Credentials())
storage.put("a/config.json", b"{}")
storage.child("a").put("weights.bin", b"1")
assert open_storage("memory://run", Credentials()).get("a/config.json") == b"{}"
assert [entry.path for entry in storage.list()] == ["a/config.json", "a/weights.bin"]
folder = localize(
    "memory://run", cache=Path("cache"), credentials=Credentials(), secret=None, field="spec.model.source", patterns=["*.json"]
)
print(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*")))
"""


def test_adds_scheme_by_one_entry_and_one_module(tmp_path: Path) -> None:
    package = Path(finetune_trainer.__file__).parent
    copied = shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    table = copied / "config/storage_schemes.py"
    table.write_text(table.read_text().replace("SCHEMES = (HUB,", f"SCHEMES = ({ENTRY} HUB,"))
    (copied / "storage/memory.py").write_text(IMPLEMENTATION)
    (tmp_path / "use.py").write_text(USE)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "MEMORY_TOKEN": "secret"}
    completed = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert completed.stdout.strip() == "['a/config.json']"
