"""Similarity of texts by MinHash (Broder 1997) and locality-sensitive hashing, with datasketch.

The similarity of two texts is the Jaccard index of their sets of five-word phrases.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from finetune_trainer.protocol import heartbeat

PHRASE_WORDS = 5
SIMILARITY_THRESHOLD = 0.8
HASHES = 128  # per sketch; the standard error of its estimate is about 1 / sqrt(128)
# 16 bands of 8 hashes: texts that agree in a whole band are compared. These are 95 % of the pairs with a similarity of 0.8, and
# 7 % of those with 0.5.
BANDS = (16, 8)
MAX_CHARACTERS = 20_000  # the part of a text that is sketched


class Sketches:
    """The MinHash sketches of the first `max_rows` rows of one split, 512 bytes each."""

    def __init__(self, max_rows: int) -> None:
        self.positions: list[int] = []
        self._max_rows = max_rows
        self._hashes: list[NDArray[np.uint32]] = []
        self._empty = MinHash(HASHES, hashfunc=zlib.crc32)
        self._index: SimilarityIndex | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def add(self, position: int, text: str) -> None:
        """Sketch the row at this position, unless the limit is reached or the text has no words."""
        assert self._index is None, "add all sketches before the index is built"
        words = text[:MAX_CHARACTERS].split()
        if len(self) == self._max_rows or not words:
            return
        phrases = set()
        for start in range(max(1, len(words) - PHRASE_WORDS + 1)):
            phrases.add(" ".join(words[start : start + PHRASE_WORDS]))
        sketch = self._empty.copy()
        sketch.update_batch([phrase.encode() for phrase in phrases])
        self.positions.append(position)
        self._hashes.append(sketch.hashvalues)

    def items(self) -> Iterator[tuple[int, MinHash]]:
        """Each row's position and sketch."""
        for position, hashes in zip(self.positions, self._hashes, strict=True):
            sketch = self._empty.copy()
            sketch.hashvalues = hashes
            yield position, sketch
            heartbeat.beat()

    def index(self) -> SimilarityIndex:
        """An index of all sketches, built at the first call, after which none may be added."""
        if self._index is None:
            self._index = SimilarityIndex()
            for _, sketch in self.items():
                self._index.add(sketch)
        return self._index


class SimilarityIndex:
    """Finds similar sketches. It stores one sketch a group of similar rows, so that many copies cost no more than two."""

    def __init__(self) -> None:
        self._buckets = MinHashLSH(num_perm=HASHES, params=BANDS)
        self._sketches: dict[int, MinHash] = {}

    def has_similar(self, sketch: MinHash) -> bool:
        """Whether the index holds a sketch that is similar to this one."""
        if not self._sketches:
            return False
        candidates = self._buckets.query(sketch)
        return any(sketch.jaccard(self._sketches[number]) >= SIMILARITY_THRESHOLD for number in candidates)

    def add(self, sketch: MinHash) -> bool:
        """Add the sketch unless the index holds a similar one; returns whether it was added."""
        if self.has_similar(sketch):
            return False
        number = len(self._sketches)
        self._sketches[number] = sketch
        self._buckets.insert(number, sketch)
        return True
