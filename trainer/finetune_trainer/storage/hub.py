"""hf://ORGANIZATION/NAME: a repository of the Hugging Face Hub, read-only."""

from __future__ import annotations

from collections.abc import Iterator
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

from finetune_trainer.config.storage_schemes import HUB, WRITABLE_SCHEMES
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError, StorageError, first_line
from finetune_trainer.storage.backend import Backend, LocalizeRequest, unsupported_scheme
from finetune_trainer.storage.base import credentials_field


class HubBackend(Backend):
    """Downloads repositories below the cache by the Hub's own client."""

    def local_path(self, uri: str, field: str) -> Path | None:
        """Raise ConfigurationError: a repository is downloaded as a whole, not read file by file."""
        raise unsupported_scheme(uri, field, WRITABLE_SCHEMES)

    def localize(self, request: LocalizeRequest) -> Path:
        """The folder below the cache with the repository's files that match the request's patterns."""
        token = request.credentials.read_for(request.secret, request.field).get("HF_TOKEN")
        with explain_hub_errors(request.uri, request.field), heartbeat.while_busy():
            folder = snapshot_download(
                HUB.path(request.uri), revision=request.revision, token=token, allow_patterns=request.patterns,
                cache_dir=request.cache / "hub",
            )  # fmt: skip
        return Path(folder)


@contextmanager
def explain_hub_errors(uri: str, field: str) -> Iterator[None]:
    """Convert errors of the Hub's client: ConfigurationError for a user's mistake, StorageError for a Hub that does not
    answer."""
    section, credentials = field.rpartition(".")[0], credentials_field(field)
    try:
        yield
    except RevisionNotFoundError as error:
        raise ConfigurationError(f"{section}.revision: {uri} has no such revision: correct or remove it") from error
    except GatedRepoError as error:
        raise ConfigurationError(
            f"{field}: {uri} is gated: accept its terms on the hub and name a Secret with HF_TOKEN in {credentials}"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigurationError(
            f"{field}: the hub has no {uri}, or it is private: correct the name, or name a Secret with HF_TOKEN in "
            f"{credentials}"
        ) from error
    except HFValidationError as error:
        raise ConfigurationError(f"{field}: {uri} is not a repository name: write {HUB.form}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        text = first_line(error)
        raise StorageError(f"{field}: could not read {uri} from the hub ({text}): check that it can be reached") from error


BACKEND = HubBackend()
