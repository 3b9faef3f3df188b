"""Multi-hot vectors: labels as a 0 or a 1 for each label, in the order of the labels."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.data.records.labels import is_binary, label_name
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.inputs.label_names import SourceHead
from finetune_trainer.protocol.outcome import ConfigurationError, DataError


class MultiHotDetector:
    """Finds out from all rows whether their lists are multi-hot vectors or lists of labels.

    They are vectors if all are equally long and hold only 0 and 1, and if lists of labels would not look like that: a label is
    not written as a float or a boolean, nor twice in a row.
    """

    def __init__(self) -> None:
        self._widths: dict[int, str] = {}  # the first row of each width
        self._first_other = ""  # the first row that is no vector
        self._first_certain = ""  # the first row that is no list of labels

    def add(self, row: Row) -> None:
        """Look at the list of a row."""
        label = row.values["label"]
        if not isinstance(label, list):
            return
        if not is_binary(label):
            self._first_other = self._first_other or row.origin
            return
        self._widths.setdefault(len(label), row.origin)
        if len(set(label)) < len(label) or any(isinstance(item, float | bool) for item in label):
            self._first_certain = self._first_certain or row.origin

    def width(self, given: Sequence[str], field: str) -> int | None:
        """The length of the vectors; None for lists of labels.

        `given` are the document's labels and `field` lists them. Raises DataError for rows that may be read either way.
        """
        if not self._widths:
            return None
        [width, *other_widths] = self._widths
        is_uniform = not other_widths and not self._first_other
        if self._first_certain and not is_uniform:
            other = self._first_other or self._widths[other_widths[0]]
            raise DataError(
                f"{self._first_certain}: the label is a multi-hot vector, and that of {other} is none of the same length: give "
                "all rows vectors of the same length, or all rows lists of labels"
            )
        if self._first_certain:
            return width
        if not is_uniform or {"0", "1"} <= set(map(label_name, given)):
            return None
        if given:
            return width
        raise DataError(
            f"{self._widths[width]}: the labels of all rows are [0, 1] or [1, 0], either multi-hot vectors or lists of two "
            f"labels: list the names of the labels in {field}"
        )


def multi_hot_names(width: int, given: Sequence[str], head: SourceHead | None, field: str) -> list[str]:
    """The names of the vectors' numbers: the document's, those of a finished head, or else "0", "1", and so on.

    Raises ConfigurationError if the document gives another number of labels.
    """
    if given and len(given) != width:
        raise ConfigurationError(
            f"spec.{field}: there are {len(given)} labels, and the multi-hot vectors of the data have {width} numbers: give "
            "each number a label"
        )
    if given:
        return list(given)
    if head is not None and head.is_named and len(head.names) == width:
        return list(head.names)
    return [str(index) for index in range(width)]


def encode_multi_hot(row: Row, width: int, field: str) -> list[float]:
    """The target of a row; raises DataError for a label that is no vector of this width."""
    label = row.values["label"]
    if not is_binary(label) or len(label) != width:
        raise row.error_for(
            "label", f"is {label!r}, and the training data has multi-hot vectors of {width} numbers 0 or 1: correct the row"
        )
    return [float(value) for value in label]
