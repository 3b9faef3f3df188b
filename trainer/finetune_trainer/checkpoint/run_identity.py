"""The part of the document that a checkpoint must agree with before a run resumes from it."""

from __future__ import annotations

from typing import Any

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.uris import uri_references

_TRAINING_FIELDS = (
    "epochs",
    "maxSteps",
    "batchSize",
    "optimizer",
    "schedule",
    "maxGradientNorm",
    "labelSmoothing",
    "continualLearning",
    "seed",
)


def identity(spec: TrainSpec) -> dict[str, Any]:
    """All fields that determine what the weights mean and which rows of the data a step reads.

    Excluded are the fields that may change when a run resumes: where objects are stored and with which credentials; how often
    the run logs, evaluates or saves; checks of the data that only report; and how the work is distributed (micro-batches, ZeRO
    stage, precision, attention).
    """
    document = spec.document()
    for reference in uri_references(document):
        reference.section.pop("credentials", None)
    model, data, training = document["model"], document["data"], document["training"]
    model.pop("attention", None)
    data.pop("evaluation", None)
    data.get("augmentation", {}).get("backTranslation", {}).pop("batchSize", None)
    data["checks"] = spec.data.checks.identity
    return {
        "model": model,
        "data": data,
        "objective": document["objective"],
        "method": document["method"],
        "training": {field: training[field] for field in _TRAINING_FIELDS if field in training},
    }
