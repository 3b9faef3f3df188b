"""The tags of words: those of the document or of its training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from finetune_trainer.data.loading.collate import IGNORE_INDEX
from finetune_trainer.data.loading.dataset import Tokens
from finetune_trainer.data.records.labels import UNKNOWN, label_name
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.inputs.label_names import LabelSet, sort_labels, without_unknown
from finetune_trainer.objectives.inputs.tag_schemes import (
    IOB1,
    SequenceFaults,
    bio_labels,
    entity_types,
    find_scheme,
    is_bio,
    parse_tag,
    to_bio,
)

IGNORED = str(IGNORE_INDEX)  # the name of a tag without a loss, as in transformers


class Tags(LabelSet):
    """The tags of words. Those of entities become BIO where the data has another scheme; see `tag_schemes`."""

    def __init__(self, given: Sequence[str], section: str) -> None:
        """`given` are the document's tags, if it lists them; `section` is the objective's section in the document."""
        super().__init__(given, section)
        self.scheme: str | None = None
        """The scheme of the data; None where the tags mark no entities."""
        self._is_converted = False
        self.entity_types: list[str] = []
        """The types of entities that the tags mark; none where the tags mark no entities."""

    @property
    def fingerprint(self) -> list[Any]:
        """Changes when the tags of a row may change; JSON."""
        return [self.given, self.order_fingerprint]

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The model's tags, the scheme of the data, and whether its tags are converted; raises DataError for a single tag."""
        counts: Counter[str] = Counter()
        begins_inside = begins_apart = False
        column = ""
        for row in rows():
            column = row.columns["tags"]
            names = self._names_of(row)
            counts.update(names)
            faults = SequenceFaults.of(names, marks_ends=False)
            begins_inside |= faults.begins_inside
            begins_apart |= faults.begins_apart
        del counts[IGNORED]
        names = list(self.given) or sort_labels(without_unknown(counts, column, self.field))
        scheme = find_scheme(set(names) | set(counts))
        if scheme == "BIO" and begins_inside and not begins_apart:
            scheme = IOB1
        is_converted = scheme is not None and not is_bio([*names, *counts])
        labels = self.choose(bio_labels(names) if is_converted else names)
        return {"labels": labels, "scheme": scheme, "convertedToBIO": is_converted}

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Use the tags."""
        self.set_names(statistics["labels"])
        self.scheme = statistics.get("scheme")
        self._is_converted = statistics.get("convertedToBIO", False)
        self.entity_types = entity_types(self.names)

    def encode(self, row: Row) -> Tokens:
        """The ids of a row's tags, [words] int32, IGNORE_INDEX for no tag; raises DataError for tags that cannot be used."""
        tags, words = row.values["tags"], row.values["tokens"]
        if len(tags) != len(words):
            raise row.error_for("tags", f"has {len(tags)} labels for {len(words)} words: correct the row")
        names = self._names_of(row)
        if self._is_converted:
            converted = to_bio(names)
            names = [new if parse_tag(old) else old for old, new in zip(names, converted, strict=True)]
        return np.array([self._id_of(row, name) for name in names], np.int32)

    def is_consistent(self, row: Row) -> bool:
        """Whether the row's tags follow the scheme of the data."""
        if self.scheme is None:
            return True
        marks_ends = self.scheme not in ("BIO", IOB1)
        faults = SequenceFaults.of(self._names_of(row), marks_ends)
        return not faults.is_unfinished and (self.scheme == IOB1 or not faults.begins_inside)

    def _names_of(self, row: Row) -> list[str]:
        """The row's tags by name; a number that is no name is an index of the document's tags."""
        names = []
        for tag in row.values["tags"]:
            name = label_name(tag)
            if isinstance(tag, int) and name not in self.given and 0 <= tag < len(self.given):
                name = self.given[tag]
            names.append(name)
        return names

    def _id_of(self, row: Row, name: str) -> int:
        if name in self._ids:
            return self._ids[name]
        if name in (IGNORED, UNKNOWN):
            return IGNORE_INDEX
        raise self.unknown_label(row, "tags", name)
