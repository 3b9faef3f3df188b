"""Where models, tokenizers and data come from: an address of the document becomes a path on this machine.

file:// and pvc:// are used where they lie. hf:// and s3:// are copied below the cache once, under a lock, so that all ranks and
agents of a machine may ask at the same time and one of them downloads.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from finetune_trainer.protocol.outcome import ConfigurationError, StorageError
from finetune_trainer.storage.base import PVC_ROOT, TRANSFERS, Credentials, Entry, Storage
from finetune_trainer.storage.locking import appearing, exclusive

log = logging.getLogger(__name__)

TOKENIZER_FILES = ["*.json", "*.model", "*.spm", "*.txt", "*.jinja", "*.py", "*.tiktoken"]
WEIGHTS = "*.safetensors"
OLD_WEIGHTS = "pytorch_model*.bin"  # what models had before; transformers reads nothing but tensors from them


def localize(
    uri: str,
    *,
    cache: Path,
    credentials: Credentials,
    secret: str | None,
    field: str,
    patterns: list[str] | None = None,
    revision: str | None = None,
) -> Path:
    """The file or folder at `uri`, on this machine; `patterns` limits what of a remote folder is copied.

    Raises ConfigurationError, beginning with `field`, for what is not there or may not be read, and StorageError for a hub or
    storage that does not answer.
    """
    scheme, _, rest = uri.partition("://")
    match scheme:
        case "hf":
            token = credentials.of(secret, f"{field.rpartition('.')[0]}.credentials").get("HF_TOKEN")
            with explained_hub(uri, field):
                return Path(
                    snapshot_download(
                        rest, revision=revision, token=token, allow_patterns=patterns, cache_dir=cache / "hub",
                    )
                )  # fmt: skip
        case "s3":
            return _copy(
                uri, cache=cache, storage=Storage.open(uri, credentials, secret, field), patterns=patterns, field=field
            )
        case _:
            path = local_path(uri, field)
            if not path.exists():
                raise ConfigurationError(f"{field}: {uri} does not exist ({path.absolute()}): correct the path or put it there")
            return path


def localize_model(
    uri: str, *, cache: Path, credentials: Credentials, secret: str | None, field: str, revision: str | None = None
) -> Path:  # fmt: skip
    """The folder of a model with its weights, on this machine, in the old form if it has no other; raises as `localize`."""

    def localized(weights: str) -> Path:
        return localize(
            uri, cache=cache, credentials=credentials, secret=secret, field=field, patterns=[*TOKENIZER_FILES, weights],
            revision=revision,
        )  # fmt: skip

    folder = localized(WEIGHTS)
    return folder if any(folder.glob(WEIGHTS)) else localized(OLD_WEIGHTS)


def local_path(uri: str, field: str) -> Path:
    """The path that a file:// or pvc:// address names; relative ones are below the working directory."""
    scheme, _, rest = uri.partition("://")
    match scheme:
        case "file":
            return Path(rest)
        case "pvc":
            return PVC_ROOT / rest
        case _:
            raise ConfigurationError(f"{field}: {uri} cannot be used here: begin it with hf://, s3://, file:// or pvc://")


@contextmanager
def explained_hub(uri: str, field: str) -> Iterator[None]:
    """Turns what the hub's client raises into one sentence: a mistake of the user, or a hub that does not answer."""
    parent = field.rpartition(".")[0]
    try:
        yield
    except RevisionNotFoundError as error:
        raise ConfigurationError(f"{parent}.revision: {uri} has no such revision: correct or remove it") from error
    except GatedRepoError as error:
        raise ConfigurationError(
            f"{field}: {uri} is gated: accept its terms on the hub and name a Secret with HF_TOKEN in {parent}.credentials"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigurationError(
            f"{field}: the hub has no {uri}, or it is private: correct the name, or name a Secret with HF_TOKEN in "
            f"{parent}.credentials"
        ) from error
    except HFValidationError as error:
        raise ConfigurationError(f"{field}: {uri} is no name of the hub: write hf://ORGANISATION/NAME") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        text = str(error).strip().split("\n", 1)[0]
        raise StorageError(f"{field}: could not read {uri} from the hub ({text}): check that it can be reached") from error


def copy_entries(entries: Collection[Entry], uri: str, *, storage: Storage, cache: Path) -> Path:
    """The folder below the cache with these objects of `storage`; they appear there all at once.

    The place follows from the address and the objects' names and sizes, so that changed data is copied anew.
    """
    identity = json.dumps([uri, sorted(entries)])
    folder = cache / "sources" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    with exclusive(folder):
        if not folder.exists():
            log.info("copying %d files, %.1f MB, from %s", len(entries), sum(entry.size for entry in entries) / 1e6, uri)
            with appearing(folder) as temporary, ThreadPoolExecutor(TRANSFERS) as pool:
                list(pool.map(lambda entry: storage.download(entry.path, temporary / entry.path), entries))
    return folder


def _copy(uri: str, *, cache: Path, storage: Storage, patterns: Sequence[str] | None, field: str) -> Path:
    entries = storage.list()
    wanted = [entry for entry in entries if patterns is None or any(fnmatch.fnmatch(entry.path, p) for p in patterns)]
    if not wanted:
        found = f"none of its {len(entries)} files is one of {', '.join(patterns)}" if entries and patterns else "it is empty"
        raise ConfigurationError(f"{field}: there is nothing to use at {uri} ({found}): correct the address or put it there")
    return copy_entries(wanted, uri, storage=storage, cache=cache)
