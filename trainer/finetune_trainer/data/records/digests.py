"""64-bit digests of rows and values, equal on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from finetune_trainer.data.records.row import Row, texts


def digest(text: str) -> int:
    """The first 64 bits of the text's BLAKE2b hash."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def value_digest(value: Any) -> int:
    """The digest of one value of a row."""
    return digest(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))


def row_digest(row: Row) -> int:
    """The digest of all values of a row, and of its folder: the same image path in another folder is another image."""
    folder = [] if row.folder is None else [str(row.folder)]
    return digest(json.dumps([row.values[role] for role in sorted(row.values)] + folder, sort_keys=True, default=str))


def text_digest(row: Row) -> int:
    """The digest of the row's texts without its labels; for a row without texts, the digest of the row."""
    row_texts = list(texts(row))
    return digest(json.dumps(row_texts)) if row_texts else row_digest(row)
