"""Names of labels: their order, and what the outputs of a finished head stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

from finetune_trainer.data.records.labels import UNKNOWN, label_name
from finetune_trainer.data.records.row import Row
from finetune_trainer.protocol.outcome import DataError, InsufficientDataError

SHOWN_LABELS = 20  # in an error message
SHOWN_OUTPUTS = 5  # in a note
MAX_SPARSE_LABELS = 20
"""More labels than this, and more than half as many as there are rows, are texts or numbers rather than labels."""


class SourceHead(NamedTuple):
    """The classification head of the model that training starts from."""

    names: list[str]
    """What each output stands for, in the order of the outputs."""
    is_named: bool
    """Whether the model names its outputs; transformers' names LABEL_0, LABEL_1, ... say nothing."""

    @classmethod
    def from_config(cls, source: Any, auto_class: Any) -> Self | None:
        """The head that a transformers configuration describes; None if it is of another task than `auto_class` loads."""
        task = f"For{auto_class.__name__.partition('For')[2]}"
        architectures = source.architectures or [task]
        if not any(task in name for name in architectures):
            return None
        names = [str(source.id2label[index]) for index in sorted(source.id2label or {})]
        return cls(names, names != [f"LABEL_{index}" for index in range(len(names))])

    def mismatch(self, labels: LabelSet) -> str | None:
        """Why the outputs do not stand for these labels, with what would keep the head; None if they do."""
        names, count = labels.names, max(len(labels.names), 1)
        if len(self.names) != count:
            needed = f"{count} labels ({_shown(names)})" if names else "a number to predict"
            return f"its head has {len(self.names)} outputs ({_shown(self.names)}), and this run has {needed}"
        if not names:
            return None
        if self.is_named:
            if _folded(self.names) == _folded(names):
                return None
            return f"its head is for the labels {_shown(self.names)}, and this run has {_shown(names)}"
        if labels.given or names == [str(index) for index in range(count)]:
            return None
        return (
            f"its head does not name its {count} outputs, and this run has the labels {_shown(names)} (to keep the head, list "
            f"them in {labels.field} in the order of its outputs)"
        )


class LabelSet:
    """The labels of the document or of its training data, in the order of the model's outputs."""

    def __init__(self, given: Sequence[str], section: str) -> None:
        """`given` are the document's labels, if it lists them; `section` is the objective's section in the document."""
        self.given = given
        self.section = section
        self.source_head: SourceHead | None = None
        """The finished head that training starts from, if there is one."""
        self._names: list[str] | None = None
        self._ids: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """The labels in the order of their ids; none of a regression."""
        assert self._names is not None, "call set_statistics before labels are used: they may come from the training data"
        return self._names

    @property
    def field(self) -> str:
        """The field of the document that lists the labels."""
        return f"objective.{self.section}.labels"

    @property
    def order_fingerprint(self) -> list[str] | None:
        """Changes when the ids of the labels may change; JSON."""
        return self.source_head and self.source_head.names

    def set_names(self, names: list[str]) -> None:
        """Use these labels, in this order."""
        self._names = names
        self._ids = {label_name(name): number for number, name in enumerate(names)}

    def choose(self, names: Sequence[str]) -> list[str]:
        """These labels, in the order of a finished head for the same labels; raises DataError if there is only one."""
        if len(names) < 2:
            raise DataError(
                f"spec.data.train: every row has the same label {', '.join(names)!r}, so there is nothing to classify: add "
                "rows with other labels"
            )
        return in_source_order(names, self.source_head)

    def config_overrides(self) -> dict[str, Any]:
        """Fields of the model's configuration: the names of its outputs, and so their number."""
        return label_config(self.names)

    def unknown_label(self, row: Row, role: str, name: str) -> DataError:
        """The error for a label of the row that is none of the labels."""
        shown = ", ".join(self.names[:SHOWN_LABELS])
        problem = f"is {name!r}, which is none of the labels ({shown}): correct the row, or set {self.field}"
        return InsufficientDataError(str(row.error_for(role, problem)))


def label_config(names: Sequence[str]) -> dict[str, Any]:
    """Fields of the model's configuration: the names of its outputs, and so their number."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def sort_labels(names: Iterable[str]) -> list[str]:
    """Distinct names, numbers by value and all others alphabetically: the same order on every machine."""
    distinct = set(names)
    if all(name.lstrip("-").isdecimal() for name in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def in_source_order(names: Sequence[str], head: SourceHead | None) -> list[str]:
    """The names in the order of the head's outputs if these are the same labels, apart from case; else unchanged.

    The weights of a finished head stay in their rows, so that the names have to follow them.
    """
    if head is None:
        return list(names)
    if set(names) == set(head.names):
        return list(head.names)
    by_folded = dict(zip(_folded(names), names, strict=True))
    if len(by_folded) == len(names) and sorted(by_folded) == sorted(_folded(head.names)):
        return [by_folded[name] for name in _folded(head.names)]
    return list(names)


def without_unknown(counts: Counter[str], column: str, field: str) -> Counter[str]:
    """The counted labels without -1 where it stands for "no label": among whole numbers from 0, or among names.

    Among other negative numbers, or with 1 alone, it is a class. Raises DataError, naming the `column` and the `field` that
    lists the labels, where it may be either.
    """
    others = Counter({name: count for name, count in counts.items() if name != UNKNOWN})
    if UNKNOWN not in counts or set(others) == {"1"} or any(_is_negative(name) for name in others):
        return counts
    if set(others) <= {"0", "1"}:
        raise DataError(
            f"spec.data.train: column {column} has the labels {', '.join(sort_labels(counts))}, of which -1 may be a class or "
            f"mean that a row has none: list all classes in {field}"
        )
    return others


def validate_distinct(counts: Counter[str], rows: int, column: str, field: str) -> None:
    """Raises DataError for a column with nearly as many labels as `rows`, which holds texts or numbers instead."""
    if len(counts) <= max(MAX_SPARSE_LABELS, rows // 2):
        return
    example = next(iter(counts))
    raise DataError(
        f"spec.data.train: column {column} has {len(counts):,} different labels in {rows:,} rows, such as {example[:40]!r}: "
        f"name the column of the labels in columns.label, list them in {field}, or set problem: Regression for numbers"
    )


def _is_negative(name: str) -> bool:
    return name.startswith("-") and name[1:].isdecimal()


def _folded(names: Sequence[str]) -> list[str]:
    return [name.casefold() for name in names]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_OUTPUTS]) + (", …" if len(names) > SHOWN_OUTPUTS else "")
