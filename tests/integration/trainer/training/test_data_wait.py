"""Batches with masking or augmentation are ready before the training step needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import corpora
from tests.support.learning import VIT, learn

TEXTS = {"objective": {"type": "MaskedLM", "maskedLM": {"wholeWord": True}}, "training": {"maxSteps": 80}}
IMAGES = {
    "objective": {
        "type": "ImageClassification",
        "imageClassification": {"imageSize": 32, "augmentation": {"randomCrop": {}, "randAugment": {}}},
    },
    "model": {"config": VIT | {"image_size": 32}, "tokenizer": None},
    "training": {"maxSteps": 150},
}


@pytest.mark.parametrize(
    ("corpus", "most", "changes"),
    [
        pytest.param(corpora.texts, 40, TEXTS, id="masked words"),
        pytest.param(corpora.digits, 200, IMAGES, id="augmented images", marks=pytest.mark.slow),
    ],
)
def test_training_waits_little_for_data(
    tmp_path: Path, corpus: Callable[[int], list[dict[str, Any]]], most: int, changes: dict[str, Any]
) -> None:
    assert learn(tmp_path, corpus(most), **changes).waiting < 0.02
