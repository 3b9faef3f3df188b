"""The URI schemes of the document: one entry a scheme, which both the document's rules and `finetune_trainer.storage` read.

A new scheme takes an entry in `SCHEMES` and the module of `finetune_trainer.storage` that the entry names. The operator imports
this file, so it imports neither torch nor obstore.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

CLAIMS_DIR = "/mnt/pvc"  # where pods mount PersistentVolumeClaims, each in a directory with the claim's name


class StorageScheme(NamedTuple):
    """One URI scheme.

    `template` is the form of the part after `://`, as error messages and descriptions show it, and `pattern` its regular
    expression. `module` names the module of `finetune_trainer.storage` that implements the scheme. `credential_keys` are the
    keys that the scheme reads from a Secret, or from environment variables of the same names.
    """

    name: str
    template: str
    module: str
    is_writable: bool = True
    pattern: str = ".+"
    credential_keys: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The beginning of every URI of the scheme."""
        return f"{self.name}://"

    @property
    def form(self) -> str:
        """The form of a whole URI, such as s3://BUCKET/PATH."""
        return self.prefix + self.template

    def matches(self, uri: str | None) -> bool:
        """Whether `uri` has this scheme."""
        return uri is not None and uri.startswith(self.prefix)

    def path(self, uri: str) -> str:
        """The part of `uri` after the scheme."""
        return uri.removeprefix(self.prefix)


HUB = StorageScheme("hf", "ORGANIZATION/NAME", "hub", is_writable=False, credential_keys=("HF_TOKEN",))
S3 = StorageScheme(
    "s3",
    "BUCKET/PATH",
    "s3",
    credential_keys=(
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
        "AWS_REGION", "AWS_DEFAULT_REGION",
    ),
)  # fmt: skip
FILE = StorageScheme("file", "/PATH", "local")
PVC = StorageScheme("pvc", "CLAIM/PATH", "pvc", pattern="[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.*)?")

SCHEMES = (HUB, S3, FILE, PVC)
WRITABLE_SCHEMES = tuple(scheme for scheme in SCHEMES if scheme.is_writable)


def scheme_of(uri: str) -> StorageScheme | None:
    """The scheme of `uri`; None if it is not in the table."""
    for scheme in SCHEMES:
        if scheme.matches(uri):
            return scheme
    return None


def credential_keys() -> list[str]:
    """The credential keys of all schemes."""
    return [key for scheme in SCHEMES for key in scheme.credential_keys]


def uri_pattern(schemes: Iterable[StorageScheme]) -> str:
    """The regular expression that URIs of these schemes match; CEL and Python read it alike."""
    return f"^({'|'.join(f'{scheme.prefix}{scheme.pattern}' for scheme in schemes)})$"


def uri_prefixes(schemes: Iterable[StorageScheme]) -> str:
    """The prefixes of these schemes as an enumeration: s3://, file:// or pvc://."""
    return _enumerate([scheme.prefix for scheme in schemes])


def uri_forms(schemes: Iterable[StorageScheme]) -> str:
    """The URI forms of these schemes as an enumeration."""
    return _enumerate([scheme.form for scheme in schemes])


def _enumerate(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} or {items[-1]}"
