"""The storage interface over a real S3 server and over folders."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from tests.support import s3

from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError, StorageError, TrainerError
from finetune_trainer.storage import s3 as s3_storage
from finetune_trainer.storage.base import Credentials, Entry, Storage
from finetune_trainer.storage.registry import open_storage

LARGE = 20 << 20  # several parts of a multipart upload


@pytest.fixture(params=["s3", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for key, value in s3_server.environment.items():
        monkeypatch.setenv(key, value)
    path = f"storage/{request.node.name}/with blanks~and#signs"
    return open_storage(s3_server.uri(path) if request.param == "s3" else f"file://{tmp_path}/{path}", Credentials())


def test_reads_written_objects(storage: Storage, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (LARGE // 256))
    assert storage.list() == []
    storage.put("a/small", b"first")
    storage.put("a/small", b"second")
    storage.child("a").put("large", large)
    assert storage.get("a/small") == b"second"
    assert storage.list() == [Entry("a/large", LARGE), Entry("a/small", 6)]
    assert storage.list("a") == storage.list()
    assert storage.child("a").list() == [Entry("large", LARGE), Entry("small", 6)]
    storage.download("a/large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    assert storage.child("a").uri == f"{storage.uri}/a"


def test_uploads_and_downloads_folders(storage: Storage, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("config.json", "weights/part-1", "weights/part-2"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    assert [entry.path for entry in storage.upload_folder(source)] == ["config.json", "weights/part-1", "weights/part-2"]
    files = storage.download_folder(target)
    assert [file.read_text() for file in files] == ["config.json", "weights/part-1", "weights/part-2"]
    assert not list(target.rglob("*.partial"))


def test_deletes_objects(storage: Storage) -> None:
    storage.put("a/b/c", b"")
    assert storage.exists("a/b/c")
    storage.delete("a/b/c")
    storage.delete("a/b/c")
    assert not storage.exists("a/b/c")
    assert storage.list() == []
    with pytest.raises(StorageError, match="there is nothing at"):
        storage.get("a/b/c")


def test_put_if_absent_lets_one_writer_win(storage: Storage) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        if storage.put_if_absent("manifest", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.get("manifest") == str(won[0]).encode()


def test_put_if_unchanged_compares_the_version(storage: Storage) -> None:
    assert storage.get_versioned("lease") is None
    assert storage.put_if_unchanged("lease", b"1", None)
    assert not storage.put_if_unchanged("lease", b"2", None)
    first = storage.get_versioned("lease")
    assert first
    assert first.content == b"1"
    assert storage.put_if_unchanged("lease", b"2", first.version)
    assert not storage.put_if_unchanged("lease", b"3", first.version)
    assert storage.get("lease") == b"2"
    storage.delete("lease")
    assert not storage.put_if_unchanged("lease", b"3", first.version)
    assert storage.get_versioned("lease") is None


def test_put_if_unchanged_works_without_conditional_writes(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    put = obstore.put

    def unconditional_put(*arguments: Any, mode: Any = None, **options: Any) -> Any:
        if isinstance(mode, dict):
            raise GenericError("501 Not Implemented: <Error><Code>NotImplemented</Code></Error>")
        return put(*arguments, mode=mode, **options)

    monkeypatch.setattr(obstore, "put", unconditional_put)
    assert storage.put_if_unchanged("lease", b"1", None)
    first = storage.get_versioned("lease")
    assert first
    assert storage.put_if_unchanged("lease", b"2", first.version)
    assert not storage.put_if_unchanged("lease", b"3", first.version)
    assert storage.get("lease") == b"2"


def test_probe_leaves_no_object(storage: Storage) -> None:
    storage.probe_writable()
    assert storage.list() == []


@pytest.mark.parametrize(
    ("uri", "changes", "kind", "message"),
    [
        ("s3://missing-bucket/x", {}, ConfigurationError, "the bucket missing-bucket of s3://.* does not exist: create it"),
        ("s3://checkpoints/x", {"AWS_ACCESS_KEY_ID": "unknown"}, ConfigurationError, r"InvalidAccessKeyId.*\.credentials"),
        ("s3://checkpoints/x", {"AWS_SECRET_ACCESS_KEY": "wrong"}, ConfigurationError, r"SignatureDoesNotMatch.*\.credentials"),
        ("s3://checkpoints/x", {"AWS_ACCESS_KEY_ID": s3.READER_KEY}, ConfigurationError, r"may not write.*AccessDenied"),
        ("s3://checkpoints/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, StorageError, "could not write s3://.* is up"),
        ("s3://checkpoints/x", {"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, StorageError, "could not write s3://.* is up"),
        ("s3://checkpoints/x", {"AWS_ENDPOINT_URL": "127.0.0.1:9"}, ConfigurationError, "begin it with http://"),
        ("s3:///x", {}, ConfigurationError, "has no bucket: write s3://BUCKET/PATH"),
        ("pvc://missing-claim/x", {}, ConfigurationError, "not mounted"),
        ("file:///proc/nowhere/x", {}, StorageError, "could not write file:///proc/nowhere/x"),
        ("gs://bucket/x", {}, ConfigurationError, "begin the URI with s3://, file:// or pvc://"),
    ],
)
def test_explains_errors(
    s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch, uri: str, changes: dict[str, str], kind: type[TrainerError],
    message: str,
) -> None:  # fmt: skip
    for key, value in (s3_server.environment | changes).items():
        monkeypatch.setenv(key, value)
    started = time.monotonic()
    with pytest.raises(kind, match=rf"^spec\.export\.\w+: .*{message}"):
        open_storage(uri, Credentials(), field="spec.export.storage").probe_writable()
    assert time.monotonic() - started < 30


def test_reads_secrets_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "from-environment")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/AWS_ACCESS_KEY_ID").write_text("key\n")
    cases: list[tuple[Credentials, str | None, str, str]] = [
        (Credentials(tmp_path), "mine", "AWS_ACCESS_KEY_ID", "key"),
        (Credentials(tmp_path), None, "HF_TOKEN", "from-environment"),
        (Credentials(), "mine", "HF_TOKEN", "from-environment"),
    ]
    for credentials, name, key, value in cases:
        assert credentials.read_for(name, "spec.checkpoint.storage")[key] == value
    assert "HF_TOKEN" not in Credentials(tmp_path).read_for("mine", "spec.checkpoint.storage")
    with pytest.raises(ConfigurationError, match=r"spec\.checkpoint\.credentials: Secret other does not exist"):
        Credentials(tmp_path).read_for("other", "spec.checkpoint.storage")
    (tmp_path / "empty/..data").mkdir(parents=True)
    with pytest.raises(
        StorageError, match=r"spec\.checkpoint\.credentials: Secret empty does not exist, or has none of the keys"
    ):
        Credentials(tmp_path).read_for("empty", "spec.checkpoint.storage")


def test_resolves_relative_folder_against_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_storage("file://./out", Credentials()).put("a", b"1")
    assert (tmp_path / "out/a").read_bytes() == b"1"


def test_times_out_when_server_hangs(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in s3_server.environment.items():
        monkeypatch.setenv(key, value)
    storage = open_storage(s3_server.uri("hanging"), Credentials())
    started = time.monotonic()
    with s3_server.outage(), pytest.raises(StorageError, match="Timeout"):
        storage.put("a", b"")
    assert time.monotonic() - started < 30


def test_an_upload_may_take_longer_than_other_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_storage, "_LARGE", {"read_timeout": "300ms", "timeout": "10s"})
    (tmp_path / "weights").write_bytes(bytes(2 << 20))
    with s3.slow_server(seconds_per_answer=1.0) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        open_storage("s3://bucket/run", Credentials()).put("weights", tmp_path / "weights")


def test_each_part_of_a_file_is_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "MIN_SECONDS", 0.0)
    (tmp_path / "weights").write_bytes(bytes(20 << 20))
    storage = open_storage(f"file://{tmp_path}/out", Credentials())
    beats: list[None] = []
    with heartbeat.relayed_to(lambda: beats.append(None)):
        storage.put("weights", tmp_path / "weights")
        assert len(beats) == 3
        storage.download("weights", tmp_path / "copy")
    assert len(beats) >= 6
    assert (tmp_path / "copy").read_bytes() == bytes(20 << 20)
