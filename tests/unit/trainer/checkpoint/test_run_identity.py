"""Which changes of a document make it another run, and which a resumed run may have."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.checkpoint.run_identity import Difference, differences, identity
from finetune_trainer.config import TrainSpec

DOCUMENT: dict[str, Any] = {
    "model": {"source": "hf://a/b", "tokenizer": {"source": "hf://a/c"}},
    "data": {
        "train": [{"source": "s3://bucket/x.jsonl"}],
        "augmentation": {
            "synonyms": {"source": "s3://bucket/words.json"},
            "backTranslation": {"forward": {"source": "hf://a/there"}, "back": {"source": "hf://a/back"}},
        },
    },
    "training": {"maxSteps": 10},
    "checkpoint": {"storage": "s3://bucket/run"},
}


def identity_with(path: str, value: Any) -> dict[str, Any]:
    """The identity of the document with the field at `path` set to `value`."""
    document: Any = TrainSpec.model_validate(DOCUMENT).document()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    section = document
    for part in parents:
        section = section[part]
    section[last] = value
    return identity(TrainSpec.model_validate(document))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.source", "hf://a/z"),
        ("model.revision", "v2"),
        ("model.config", {"rope_theta": 5}),
        ("model.tokenizer.source", "hf://a/z"),
        ("data.train.0.source", "s3://bucket/z.jsonl"),
        ("data.train.0.columns", {"text": "body"}),
        ("data.maxLength", 2048),
        ("data.packing", False),
        ("data.overlong", "Drop"),
        ("data.checks.duplicates", "Drop"),
        ("data.checks.personalData", "Scrub"),
        ("data.checks", {"personalData": "Drop", "personalDataDetector": "Presidio"}),
        ("data.folds", {"count": 3}),
        ("data.train.0.weight", 2.0),
        ("data.augmentation", {"noise": 0.1}),
        ("data.augmentation.synonyms.share", 0.2),
        ("data.augmentation.backTranslation.back.revision", "v2"),
        ("data.augmentation.backTranslation.forward.prefix", ">>deu<< "),
        ("data.augmentation.backTranslation.temperature", 1.0),
        ("data.augmentation.backTranslation.maxLength", 64),
        ("method", {"type": "LoRA"}),
        ("method.freeze", {"layers": 1}),
        ("method.unfreeze", {"everySteps": 5}),
        ("training.optimizer.layerDecay", 0.9),
        ("training.batchSize", 64),
        ("training.seed", 1),
        ("training.optimizer.learningRate", 1.0),
        ("training.schedule.type", "Cosine"),
        ("training.maxGradientNorm", 2.0),
        ("training.labelSmoothing", 0.1),
    ],
)
def test_change_makes_another_run(path: str, value: Any) -> None:
    assert identity_with(path, value) != identity(TrainSpec.model_validate(DOCUMENT))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.credentials", "secret"),
        ("model.attention", "SDPA"),
        ("model.tokenizer.credentials", "secret"),
        ("data.train.0.credentials", "secret"),
        ("data.evaluation", [{"source": "s3://bucket/y.jsonl"}]),
        ("data.augmentation.synonyms.credentials", "secret"),
        ("data.augmentation.backTranslation.forward.credentials", "secret"),
        ("data.augmentation.backTranslation.back.credentials", "secret"),
        ("data.augmentation.backTranslation.batchSize", 8),
        ("data.checks.duplicates", "Fail"),
        ("data.checks.personalData", "Ignore"),
        ("data.checks.comparedRows", 0),
        ("data.checks.personalDataDetector", "Presidio"),
        ("training.maxSteps", 11),
        ("training.earlyStopping", None),
        ("training.microBatchSize", 8),
        ("training.precision", "Float32"),
        ("training.gradientCheckpointing", True),
        ("training.logEverySteps", 5),
        ("deepspeed.zeroStage", 3),
        ("evaluation.everySteps", None),
        ("evaluation.metric", "perplexity"),
        ("checkpoint.storage", "s3://elsewhere/run"),
        ("checkpoint.keepLast", 9),
        ("checkpoint.everySteps", 3),
        ("export.mergeAdapters", False),
        ("export.storage", "s3://elsewhere/model"),
    ],
)
def test_change_keeps_run(path: str, value: Any) -> None:
    assert identity_with(path, value) == identity(TrainSpec.model_validate(DOCUMENT))


def test_epochs_may_replace_max_steps() -> None:
    document = TrainSpec.model_validate(DOCUMENT).document()
    document["training"]["epochs"] = 3
    del document["training"]["maxSteps"]
    assert identity(TrainSpec.model_validate(document)) == identity(TrainSpec.model_validate(DOCUMENT))


def test_lists_every_difference_with_both_values() -> None:
    stored = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": [1]}
    current = {"a": {"b": 3, "c": [1, {"d": 4}]}, "e": [1, 2], "f": "x"}
    assert differences(stored, current) == [
        Difference("spec.a.b", 1, 3),
        Difference("spec.a.c[1].d", 2, 4),
        Difference("spec.e", [1], [1, 2]),
        Difference("spec.f", None, "x"),
    ]
    assert str(Difference("spec.f", None, "x")) == 'spec.f was absent and is "x"'


def test_a_field_that_is_new_in_the_schema_differs_only_from_its_default() -> None:
    stored = identity(TrainSpec.model_validate(DOCUMENT))
    del stored["training"]["labelSmoothing"]
    assert differences(stored, identity(TrainSpec.model_validate(DOCUMENT))) == []
    smoothed = identity_with("training.labelSmoothing", 0.1)
    assert differences(stored, smoothed) == [Difference("spec.training.labelSmoothing", 0.0, 0.1)]


def test_knows_the_addresses_of_training_data() -> None:
    stored = identity(TrainSpec.model_validate(DOCUMENT))
    (moved,) = differences(stored, identity_with("data.train.0.source", "s3://bucket/moved.jsonl"))
    assert moved.is_data_address
    (renamed,) = differences(stored, identity_with("data.train.0.columns", {"text": "body"}))
    assert not renamed.is_data_address
