"""Models, tokenizers and data on this machine: the path for a URI of the document.

file:// and pvc:// are used in place. hf:// and s3:// are copied below the cache once, under a lock: all ranks and agents of a
machine may ask at the same time, and one of them downloads.
"""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.config.storage_schemes import SCHEMES
from finetune_trainer.storage.backend import LocalizeRequest
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.registry import find_backend

TOKENIZER_FILES = ["*.json", "*.model", "*.spm", "*.txt", "*.jinja", "*.py", "*.tiktoken"]
WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "pytorch_model*.bin"  # the format before safetensors; transformers loads only tensors from it


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
    """The file or folder at `uri`, on this machine; `patterns` limits which files of a remote folder are copied.

    Raises ConfigurationError, beginning with `field`, for a URI that does not exist or may not be read, and StorageError for a
    storage that does not answer.
    """
    request = LocalizeRequest(uri, field, cache, credentials, secret, patterns, revision)
    return find_backend(uri, field, SCHEMES).localize(request)


def localize_model(
    uri: str, *, cache: Path, credentials: Credentials, secret: str | None, field: str, revision: str | None = None
) -> Path:  # fmt: skip
    """The folder of a model with its weights, on this machine, pickled ones if it has no others; raises as `localize`."""

    def localize_with(weights: str) -> Path:
        return localize(
            uri, cache=cache, credentials=credentials, secret=secret, field=field, patterns=[*TOKENIZER_FILES, weights],
            revision=revision,
        )  # fmt: skip

    folder = localize_with(WEIGHTS)
    if any(folder.glob(WEIGHTS)):
        return folder
    return localize_with(PICKLED_WEIGHTS)


def local_path(uri: str, field: str) -> Path | None:
    """The path of a URI whose files are on this machine already; None for objects that must be copied.

    Raises ConfigurationError for a scheme that has neither.
    """
    return find_backend(uri, field, SCHEMES).local_path(uri, field)
