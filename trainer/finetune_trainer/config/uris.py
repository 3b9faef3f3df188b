"""Where in a document addresses stand: wherever a section has a `source` to read or a `storage` to write to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Location = tuple[int | str, ...]
FREE_FORM = "config"  # settings of transformers and DeepSpeed, which are not ours to understand


class UriReference(NamedTuple):
    """One section of a document, as it stands in YAML, that holds an address or names the Secret for one."""

    section: dict[str, Any]
    key: str
    where: Location
    """The section's place in the document."""

    @property
    def uri(self) -> str | None:
        """The address, if the section has one."""
        return self.section.get(self.key)

    @property
    def credentials(self) -> str | None:
        """The Secret that opens it."""
        return self.section.get("credentials")

    @property
    def writes(self) -> bool:
        """Whether something is stored there."""
        return self.key == "storage"

    @property
    def field(self) -> Location:
        """The address's own place in the document."""
        return (*self.where, self.key)


def uri_references(document: dict[str, Any], *where: int | str) -> Iterator[UriReference]:
    """All of them, in the order of the document; `where` is the document's own place in a larger one."""
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
    """The place as people write it: spec.data.train[0]."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
