"""What a checkpoint records of the data of its run, and how the data of a resuming run is compared with it.

The digests of the source files are known before any row is read. Those of the prepared sequences are known after preparation;
they also cover what else decides the sequences, such as a tokenizer or the version of a library.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from finetune_trainer.config.base import Section

MAX_NAMED_FILES = 1000  # of one source in a manifest
MAX_NAMED_CHANGES = 3  # in a message


class SourceRecord(Section):
    """The files of one source, in the order in which they are read."""

    digest: str = Field(description="SHA-256 of the digests of all files, in their order.")
    count: int = Field(ge=0, description="Number of files.")
    files: dict[str, str] = Field(
        default_factory=dict, description=f"SHA-256 of each file by its name; empty for more than {MAX_NAMED_FILES:,} files."
    )

    def changes(self, current: SourceRecord) -> str | None:
        """A phrase on how `current` differs; None if its contents are the same, whatever the names of the files."""
        if self.digest == current.digest:
            return None
        if not self.files or not current.files:
            before = "" if self.count == current.count else f" (they were {self.count:,})"
            return f"some of its {current.count:,} files{before} changed"
        changed = [name for name in self.files if name in current.files and self.files[name] != current.files[name]]
        removed = [name for name in self.files if name not in current.files]
        added = [name for name in current.files if name not in self.files]
        phrases = [
            _phrase(changed, "changed"),
            _phrase(removed, "was removed" if len(removed) == 1 else "were removed"),
            _phrase(added, "was added" if len(added) == 1 else "were added"),
        ]
        return ", ".join(filter(None, phrases)) or "the order of its files changed"


class DataRecord(Section):
    """The data of a run."""

    sources: dict[str, SourceRecord] = Field(description="The sources by their field, such as data.train[0].")
    rows: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the prepared sequences of each split that has any."
    )

    def source_changes(self, current: DataRecord, *, of_evaluation: bool) -> Iterator[tuple[str, str]]:
        """The field of each source of training or of evaluation data that differs, and a phrase on how it does."""
        for field in sorted(self.sources.keys() | current.sources.keys()):
            if field.startswith("data.evaluation") != of_evaluation:
                continue
            stored, new = self.sources.get(field), current.sources.get(field)
            if stored is None or new is None:
                yield field, "it was added" if stored is None else "it was removed"
            elif changes := stored.changes(new):
                yield field, changes


def _phrase(names: list[str], verb: str) -> str:
    if not names:
        return ""
    named = ", ".join(names[:MAX_NAMED_CHANGES])
    if len(names) > MAX_NAMED_CHANGES:
        named += f" and {len(names) - MAX_NAMED_CHANGES:,} more"
    return f"{named} {verb}"
