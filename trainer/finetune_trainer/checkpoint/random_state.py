"""The state of every random number generator that a training step draws from, as tensors and plain lists."""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch


def capture() -> dict[str, Any]:
    """The state of this process's generators: Python's, NumPy's, torch's and that of its GPU."""
    version, words, gauss = random.getstate()
    generator = numpy.random.get_state(legacy=False)
    return {
        "python": [version, list(words), gauss],
        "numpy": {**generator, "state": {"key": generator["state"]["key"].tolist(), "pos": int(generator["state"]["pos"])}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


STRIDE = 2**20  # more than there are ranks, so that no two pairs of rank and step have the same seed


def reseed(step: int) -> None:
    """Give torch's generators, which were seeded for this rank, a new seed for the steps after this one.

    For a rank that has no state of its own in a checkpoint, because the number of ranks has changed. It would otherwise repeat
    the random numbers of the first steps.
    """
    torch.manual_seed((torch.initial_seed() + step * STRIDE) % 2**63)


def restore(state: dict[str, Any]) -> None:
    """Set the generators to a captured state; that of the GPU only if there was one then and is one now."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    words = numpy.array(state["numpy"]["state"]["key"], dtype=numpy.uint32)
    numpy.random.set_state({**state["numpy"], "state": {**state["numpy"]["state"], "key": words}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
