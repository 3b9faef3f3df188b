"""Object storage and folders behind one small interface: s3://BUCKET/PATH, file:///PATH and pvc://CLAIM/PATH.

What goes wrong is said in one sentence that names the field of the document and the address. A mistake of the user (a bucket
that is not there, credentials that are refused) is a `ConfigurationError`; a storage that does not answer is a `StorageError`.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, S3Store

from finetune_trainer.protocol.outcome import ConfigurationError, StorageError, TrainerError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

PVC_ROOT = Path("/mnt/pvc")
KEYS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_REGION", "AWS_DEFAULT_REGION", "HF_TOKEN",
)  # fmt: skip
TRANSFERS = 4  # at once; more would compete with the training for its cores
_SMALL_BYTES = 1 << 20
_PART_BYTES = 8 << 20
_MOST_PARTS = 9_000  # S3 allows 10,000 parts an object
# Small requests must fail within half a minute; large bodies may take long as long as bytes keep coming.
_SMALL: ClientConfig = {"connect_timeout": "4s", "timeout": "8s"}
_LARGE: ClientConfig = {"connect_timeout": "4s", "read_timeout": "20s", "timeout": "12h"}
_RETRY: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}


@dataclass(frozen=True)
class Credentials:
    """Secrets by name: one folder a Secret and one file a key, as Kubernetes mounts them."""

    directory: Path | None = None

    def of(self, name: str | None, field: str = "spec.checkpoint.credentials") -> Mapping[str, str]:
        """The keys of the Secret `name`; without a name or a folder of Secrets, those of the environment.

        Raises ConfigurationError when the Secret is not mounted.
        """
        if name is None or self.directory is None:
            return {key: os.environ[key] for key in KEYS if os.environ.get(key)}
        folder = self.directory / name
        if not folder.is_dir():
            raise ConfigurationError(
                f"{field}: there is no Secret {name}: create it in the job's namespace, or correct the name"
            )
        return {file.name: file.read_text().rstrip("\r\n") for file in folder.iterdir() if file.is_file()}


class Entry(NamedTuple):
    """One stored object; `path` is relative to the storage that listed it, `size` in bytes."""

    path: str
    size: int


class Storage:
    """A place below which objects are read and written; open one with `Storage.open`."""

    def __init__(
        self, uri: str, field: str, small: ObjectStore, large: ObjectStore, folder: Path | None, path: str = ""
    ) -> None:
        self._root = uri.rstrip("/")
        self._field = field
        self._small = small
        self._large = large
        self._folder = folder
        self._path = path

    @classmethod
    def open(
        cls, uri: str, credentials: Credentials, secret: str | None = None, field: str = "spec.checkpoint.storage"
    ) -> Storage:
        """The storage at `uri`, without touching it yet; `field` is the part of the document that errors name.

        Raises ConfigurationError for an address or a Secret that cannot be used.
        """
        scheme, _, rest = uri.partition("://")
        match scheme:
            case "s3":
                keys = credentials.of(secret, f"{field.rpartition('.')[0]}.credentials")
                return cls(uri, field, _s3(uri, field, keys, _SMALL), _s3(uri, field, keys, _LARGE), None)
            case "file" | "pvc":
                folder = Path(rest).absolute() if scheme == "file" else PVC_ROOT / rest
                if scheme == "pvc" and not (PVC_ROOT / rest.partition("/")[0]).is_dir():
                    raise ConfigurationError(
                        f"{field}: the claim of {uri} is not mounted here: correct its name, or use file://"
                    )
                # The root of the file system as the store's: opening must not create a folder that is only to be read.
                store = LocalStore("/")
                return cls(uri, field, store, store, folder)
            case _:
                raise ConfigurationError(f"{field}: {uri} cannot be used here: begin it with s3://, file:// or pvc://")

    @property
    def uri(self) -> str:
        """The address, as the document gives it."""
        return "/".join(filter(None, (self._root, self._path)))

    @property
    def folder(self) -> Path | None:
        """Where the objects lie as plain files; None for an object storage."""
        return self._folder / self._path if self._folder else None

    def child(self, path: str) -> Self:
        """The storage below `path`."""
        return type(self)(self._root, self._field, self._small, self._large, self._folder, self._join(path))

    def put(self, path: str, content: bytes | Path) -> None:
        """Writes an object whole or not at all, over one that is there; large files go in parts, four at once."""
        with self._explained("write", path):
            if isinstance(content, bytes):
                store = self._small if len(content) <= _SMALL_BYTES else self._large
                obstore.put(store, self._key(path), content, use_multipart=False)
                return
            size = content.stat().st_size
            part = max(_PART_BYTES, -(-size // _MOST_PARTS))
            obstore.put(self._large, self._key(path), content, chunk_size=part, max_concurrency=TRANSFERS)

    def put_if_absent(self, path: str, content: bytes) -> bool:
        """Writes an object unless there is one; whether this call wrote it. Of several writers at once exactly one wins."""
        with self._explained("write", path):
            try:
                obstore.put(self._small, self._key(path), content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def get(self, path: str) -> bytes:
        """The content of one object; raises StorageError when there is none."""
        with self._explained("read", path):
            return bytes(obstore.get(self._large, self._key(path)).bytes())

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        with self._explained("read", path):
            try:
                obstore.head(self._small, self._key(path))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return False
        return True

    def download(self, path: str, to: Path) -> None:
        """Copies one object to the file `to`, which appears only when it is complete."""
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary = to.with_name(f"{to.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            with self._explained("read", path), temporary.open("wb") as file:
                for chunk in obstore.get(self._large, self._key(path)).stream(min_chunk_size=_PART_BYTES):
                    file.write(memoryview(chunk))
            temporary.replace(to)
        finally:
            temporary.unlink(missing_ok=True)

    def download_folder(self, to: Path) -> list[Path]:
        """Copies every object to the same path below `to`; the files written, in order of their names."""
        entries = self.list()
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda entry: self.download(entry.path, to / entry.path), entries))
        return [to / entry.path for entry in entries]

    def upload_folder(self, folder: Path) -> list[Entry]:
        """Writes every file below `folder` to the same path here; what was written, in order of their names."""
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        entries = [Entry(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda entry: self.put(entry.path, folder / entry.path), entries))
        return entries

    def delete(self, path: str) -> None:
        """Removes one object; one that is not there is no error."""
        with self._explained("remove", path), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._small, self._key(path))
            if self._folder:
                # A folder that became empty goes as well, as it would in an object storage.
                for parent in (self._folder / self._join(path)).parents:
                    if parent == self._folder or self._folder not in parent.parents:
                        break
                    with contextlib.suppress(OSError):
                        parent.rmdir()

    def probe_writable(self) -> None:
        """Writes and removes a small object, so that a mistake shows before the first step instead of after hours."""
        path = self._key(f".finetune-probe-{uuid.uuid4().hex}")
        with self._explained("write", ""):
            if self._folder is None:
                # Some servers answer a write to a bucket that is not there with "access denied".
                next(iter(obstore.list(self._small, self._key(""), chunk_size=1)), None)
            obstore.put(self._small, path, b"", use_multipart=False)
            obstore.delete(self._small, path)

    def list(self, prefix: str = "") -> list[Entry]:
        """All objects below `prefix`, a folder's name and not any beginning of a name, in order."""
        strip = len(self._key("")) + 1 if self._key("") else 0
        with self._explained("list", prefix):
            if self._folder and not (self._folder / self._join(prefix)).is_dir():
                return []
            found = [meta for batch in obstore.list(self._small, self._key(prefix)) for meta in batch]
        return sorted(Entry(meta["path"][strip:], meta["size"]) for meta in found)

    def _join(self, path: str) -> str:
        return "/".join(filter(None, (self._path, path.strip("/"))))

    def _key(self, path: str) -> str:
        joined = self._join(path)
        return "/".join(filter(None, (str(self._folder).strip("/"), joined))) if self._folder else joined

    @contextlib.contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            raise _explain(error, verb, self._field, "/".join(filter(None, (self.uri, path)))) from error


def _s3(uri: str, field: str, keys: Mapping[str, str], client: ClientConfig) -> S3Store:
    parts = urlsplit(uri)
    if not parts.netloc:
        raise ConfigurationError(f"{field}: {uri} names no bucket: write s3://BUCKET/PATH")
    endpoint = keys.get("AWS_ENDPOINT_URL_S3") or keys.get("AWS_ENDPOINT_URL")
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        where = f"{field.rpartition('.')[0]}.credentials"
        raise ConfigurationError(f"{where}: AWS_ENDPOINT_URL is {endpoint}: begin it with http:// or https://")
    options = {
        "access_key_id": keys.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": keys.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": keys.get("AWS_SESSION_TOKEN"),
        "region": keys.get("AWS_REGION") or keys.get("AWS_DEFAULT_REGION") or "us-east-1",
        "endpoint": endpoint,
    }
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config={name: value for name, value in options.items() if value},  # type: ignore[arg-type]  # keys of a TypedDict
        # Servers of one's own seldom answer at BUCKET.HOST.
        virtual_hosted_style_request=endpoint is None,
        client_options={**client, "allow_http": bool(endpoint and endpoint.startswith("http://"))},
        retry_config=_RETRY,
    )


def _explain(error: Exception, verb: str, field: str, uri: str) -> TrainerError:
    text = str(error)
    found = re.search(r"<Code>(\w+)</Code>", text)
    code = found[1] if found else ""
    if code == "NoSuchBucket":
        bucket = urlsplit(uri).netloc
        return ConfigurationError(f"{field}: the bucket {bucket} of {uri} does not exist: create it, or correct the address")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError) or re.search(
        r"\b40[13] |os error 13", text
    ):
        where = f"{field.rpartition('.')[0]}.credentials" if uri.startswith("s3://") else "the folder's owner and mode"
        return ConfigurationError(f"{field}: may not {verb} {uri} ({code or 'access denied'}): correct {where}, or the address")
    if isinstance(error, FileNotFoundError):
        return StorageError(f"{field}: there is nothing at {uri}: it was removed, or the address is wrong")
    cause = re.search(r"os error 28|kind: (\w+)|status: (\d+)", text)
    if cause and cause[0] == "os error 28":
        return StorageError(f"{field}: there is no space left to {verb} {uri}: make room, or keep fewer checkpoints")
    advice = "that the storage is up and its endpoint is right" if uri.startswith("s3://") else "that the folder can be used"
    detail = code or (cause and (cause[1] or cause[2])) or text.split("\n", 1)[0][:200]
    return StorageError(f"{field}: could not {verb} {uri} ({detail}): check {advice}")
