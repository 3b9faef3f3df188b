"""Labels as data writes them: their names, values that mean "no label", and multi-hot vectors."""

from __future__ import annotations

import math
import re
from typing import Any

UNKNOWN = "-1"
"""The name of a label that data of the Hugging Face Hub uses for rows without one."""
_WHOLE_FLOAT = re.compile(r"([+-]?\d+)\.0+")


def label_name(label: Any) -> str:
    """The label as the model's configuration names it, without white space around it.

    The number 1, the floats 1.0 and "1.0", and the string "1" are the same label, and so are true in JSON and "true" in CSV.
    """
    if isinstance(label, bool):
        return str(label).lower()
    name = str(label).strip()
    whole = _WHOLE_FLOAT.fullmatch(name)
    return str(int(whole[1])) if whole else name


def is_missing(label: Any) -> bool:
    """Whether a value stands for no label: null, NaN, or a string without characters."""
    if isinstance(label, float):
        return math.isnan(label)
    return label is None or (isinstance(label, str) and not label.strip())


def is_binary(label: Any) -> bool:
    """Whether a value is a list of at least two numbers that are all 0 or 1: a multi-hot vector, or a list of two labels."""
    if not isinstance(label, list) or len(label) < 2:
        return False
    return all(isinstance(item, int | float) and item in (0, 1) for item in label)
