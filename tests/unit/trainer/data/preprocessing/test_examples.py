"""Splitting, truncating and dropping of documents that are longer than a sequence."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_trainer.data.preprocessing.examples import EncodeStatus, Overlong, split_or_truncate


@pytest.mark.parametrize(
    ("length", "overlong", "overlap", "pieces", "status"),
    [
        (0, "Split", 1, [], EncodeStatus.EMPTY),
        (1, "Split", 1, [], EncodeStatus.EMPTY),
        (2, "Split", 1, [[0, 1]], EncodeStatus.KEPT),
        (4, "Split", 1, [[0, 1, 2, 3]], EncodeStatus.KEPT),
        (5, "Split", 1, [[0, 1, 2, 3], [3, 4]], EncodeStatus.SPLIT),
        (7, "Split", 1, [[0, 1, 2, 3], [3, 4, 5, 6]], EncodeStatus.SPLIT),
        (8, "Split", 1, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]], EncodeStatus.SPLIT),
        (4, "Truncate", 1, [[0, 1, 2, 3]], EncodeStatus.KEPT),
        (5, "Truncate", 1, [[0, 1, 2, 3]], EncodeStatus.TRUNCATED),
        (4, "Drop", 1, [[0, 1, 2, 3]], EncodeStatus.KEPT),
        (5, "Drop", 1, [], EncodeStatus.DROPPED),
        (0, "Split", 0, [], EncodeStatus.EMPTY),
        (1, "Split", 0, [[0]], EncodeStatus.KEPT),
        (5, "Split", 0, [[0, 1, 2, 3], [4]], EncodeStatus.SPLIT),
        (8, "Split", 0, [[0, 1, 2, 3], [4, 5, 6, 7]], EncodeStatus.SPLIT),
    ],
)
def test_pieces_of_at_most_four_tokens(
    length: int, overlong: Overlong, overlap: int, pieces: list[list[int]], status: EncodeStatus
) -> None:
    split, result = split_or_truncate(np.arange(length, dtype=np.int32), 4, overlong, overlap)
    assert [piece.tolist() for piece in split] == pieces
    assert result is status


@pytest.mark.parametrize("length", range(2, 40))
def test_every_token_of_a_split_document_is_predicted_once(length: int) -> None:
    pieces, _ = split_or_truncate(np.arange(length, dtype=np.int32), 8, "Split", overlap=1)
    assert [token for piece in pieces for token in piece[1:].tolist()] == list(range(1, length))
