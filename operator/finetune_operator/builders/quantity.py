"""Quantities of Kubernetes: different notations of the same amount are equal, such as 500m and "0.5"."""

from __future__ import annotations

import re
from decimal import Decimal

PATTERN = re.compile(r"([+-]?[0-9]*\.?[0-9]+|[+-]?[0-9]+\.)([eE][+-]?[0-9]+)?([a-zA-Z]*)")
FACTORS = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def parse_quantity(quantity: int | str) -> Decimal | str:
    """The amount; text that is no quantity is returned as it is, because the API server names it when it rejects the pod."""
    match = PATTERN.fullmatch(str(quantity))
    if match is None or match[3] not in FACTORS:
        return str(quantity)
    return Decimal(match[1] + (match[2] or "")) * FACTORS[match[3]]
