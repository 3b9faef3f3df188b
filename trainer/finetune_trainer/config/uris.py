"""Finds the URIs in a document: the `source` or `storage` of any section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Location = tuple[int | str, ...]
FREE_FORM = "config"  # settings of transformers and DeepSpeed, which can contain any key


class UriReference(NamedTuple):
    """A section of a document, as in YAML, with a URI or with the Secret for one."""

    section: dict[str, Any]
    key: str
    where: Location
    """The section's path in the document."""

    @property
    def uri(self) -> str | None:
        """The URI, if the section has one."""
        return self.section.get(self.key)

    @property
    def credentials(self) -> str | None:
        """The Secret with the credentials for the URI."""
        return self.section.get("credentials")

    @property
    def writes(self) -> bool:
        """Whether the run writes to the URI."""
        return self.key == "storage"

    @property
    def field(self) -> Location:
        """The path of the URI's field in the document."""
        return (*self.where, self.key)


def uri_references(document: dict[str, Any], *where: int | str) -> Iterator[UriReference]:
    """All references of a document, in its order; `where` is the path of the document in a larger one."""
    key = "storage" if "storage" in document else "source"
    if key in document or "credentials" in document:
        yield UriReference(document, key, where)
    for name, value in document.items():
        if name == FREE_FORM:
            continue
        if isinstance(value, dict):
            yield from uri_references(value, *where, name)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield from uri_references(item, *where, name, index)


def dotted_path(where: Location) -> str:
    """A path in dotted form: spec.data.train[0]."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
