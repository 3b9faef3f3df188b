"""What becomes of a document that is longer than a sequence may be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from finetune_trainer.data.pieces import Counts, Overlong, cut


@pytest.mark.parametrize(
    ("length", "overlong", "pieces", "counted"),
    [
        (0, "Split", [], {"empty": 1}),
        (1, "Split", [], {"empty": 1}),
        (2, "Split", [[0, 1]], {}),
        (4, "Split", [[0, 1, 2, 3]], {}),
        (5, "Split", [[0, 1, 2, 3], [3, 4]], {"split": 1}),
        (7, "Split", [[0, 1, 2, 3], [3, 4, 5, 6]], {"split": 1}),
        (8, "Split", [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]], {"split": 1}),
        (4, "Truncate", [[0, 1, 2, 3]], {}),
        (5, "Truncate", [[0, 1, 2, 3]], {"truncated": 1}),
        (4, "Drop", [[0, 1, 2, 3]], {}),
        (5, "Drop", [], {"dropped": 1}),
    ],
)
def test_pieces_of_four_tokens(length: int, overlong: Overlong, pieces: list[list[int]], counted: dict[str, Any]) -> None:
    counts = Counts()
    found = cut(np.arange(length, dtype=np.int32), 4, overlong, counts)
    assert [piece.tolist() for piece in found] == pieces
    assert {name: value for name, value in asdict(counts).items() if value} == counted


@pytest.mark.parametrize("length", range(2, 40))
def test_a_split_document_is_predicted_whole(length: int) -> None:
    predicted = [
        token for piece in cut(np.arange(length, dtype=np.int32), 8, "Split", Counts()) for token in piece[1:].tolist()
    ]
    assert predicted == list(range(1, length))
