"""Where prepared samples come from: by their place, or, for packed ones, by their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS
from finetune_trainer.data.loading.origins import Origins, OriginWriter, example_digest

EXAMPLES = [[1, 2], [3], [4, 5, 6], [3], [7, 8]]


def write_origins(folder: Path) -> list[Path]:
    """The origins of the examples in two files, the first in two batches."""
    files = [folder / "train", folder / "replay"]
    for path, batches in zip(files, ([(0, 2), (2, 4)], [(4, 5)]), strict=True):
        writer = OriginWriter(path)
        for begin, end in batches:
            digests = [example_digest(tokens) for tokens in EXAMPLES[begin:end]]
            writer.write(digests, [f"a.jsonl:{number + 1}" for number in range(begin, end)])
        writer.close()
    return files


def sample(tokens: list[int], lengths: list[int] | None = None) -> dict[str, Any]:
    packed = {} if lengths is None else {LENGTHS: np.array(lengths, np.int32)}
    return {TOKENS: np.array(tokens, np.int64), **packed}


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([], []),
        ([0], ["a.jsonl:1"]),
        ([4, 2, 2], ["a.jsonl:5", "a.jsonl:3"]),
        ([3], ["a.jsonl:4"]),
    ],
)
def test_finds_samples_by_their_index(tmp_path: Path, indices: list[int], expected: list[str]) -> None:
    samples = [sample(tokens) for tokens in EXAMPLES]
    assert Origins(samples, write_origins(tmp_path)).of(indices) == expected


def test_finds_the_documents_of_packed_samples(tmp_path: Path) -> None:
    samples = [sample([7, 8, 1, 2], [2, 2]), sample([4, 5, 6, 3], [3, 1]), sample([9, 9], [2])]
    origins = Origins(samples, write_origins(tmp_path))
    assert origins.of([1, 0]) == ["a.jsonl:3", "a.jsonl:2", "a.jsonl:5", "a.jsonl:1"], "the first of equal rows is named"
    assert origins.of([2]) == []
