"""Rows that are nearly the same: MinHash (Broder 1997) and locality-sensitive hashing, by datasketch.

Two texts are as similar as the share of phrases of five words that they have in common among all phrases of both.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

WORDS = 5  # of a phrase
SIMILAR = 0.8  # share of common phrases
HASHES = 128  # of a sketch; its estimate is off by about 1 / sqrt(128)
BANDS = (16, 8)  # whatever agrees in all 8 hashes of one of 16 bands is compared: 95 % of what is similar by 0.8, 7 % by 0.5
MOST_CHARACTERS = 20_000  # of a text that are looked at
BATCH = 1000  # rows between two signs of life


class Sketches:
    """What is kept of the texts of the first `most` rows of one side: 512 bytes each."""

    def __init__(self, most: int) -> None:
        self.places: list[int] = []
        self._most = most
        self._sketches: list[NDArray[np.uint32]] = []
        self._empty = MinHash(HASHES, hashfunc=zlib.crc32)

    def __len__(self) -> int:
        return len(self.places)

    def add(self, place: int, text: str) -> None:
        """Take notice of the row at `place`, unless there is no room left or no word in it."""
        words = text[:MOST_CHARACTERS].split()
        if len(self) == self._most or not words:
            return
        phrases = {" ".join(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1))}
        sketch = self._empty.copy()
        sketch.update_batch([phrase.encode() for phrase in phrases])
        self.places.append(place)
        self._sketches.append(sketch.hashvalues)

    def __getitem__(self, number: int) -> MinHash:
        sketch = self._empty.copy()
        sketch.hashvalues = self._sketches[number]
        return sketch


class Index:
    """Rows that are alike are represented by the first of them, so that many copies of one text cost no more than two."""

    def __init__(self) -> None:
        self._buckets = MinHashLSH(num_perm=HASHES, params=BANDS)
        self._known: dict[int, MinHash] = {}

    def knows(self, sketch: MinHash) -> bool:
        """Whether it is similar to a row in the index."""
        return bool(self._known) and any(
            sketch.jaccard(self._known[number]) >= SIMILAR for number in self._buckets.query(sketch)
        )

    def add(self, sketch: MinHash) -> bool:
        """Puts the sketch into the index, unless it is similar to another there; whether it is."""
        if self.knows(sketch):
            return True
        number = len(self._known)
        self._known[number] = sketch
        self._buckets.insert(number, sketch)
        return False


def index_of(rows: Sketches, alive: Callable[[], None]) -> Index:
    """An index of all of them."""
    index = Index()
    for number in range(len(rows)):
        index.add(rows[number])
        _now_and_then(number, alive)
    return index


def similar(rows: Sketches, held_out: Index, alive: Callable[[], None]) -> tuple[list[int], list[int]]:
    """Places of rows that are similar to one that is held out, and of those similar to one before them."""
    learnt = Index()
    leaked, repeated = [], []
    for number, place in enumerate(rows.places):
        sketch = rows[number]
        if held_out.knows(sketch):
            leaked.append(place)
        if learnt.add(sketch):
            repeated.append(place)
        _now_and_then(number, alive)
    return leaked, repeated


def _now_and_then(number: int, alive: Callable[[], None]) -> None:
    if number % BATCH == 0:
        alive()
