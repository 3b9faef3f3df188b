"""What a checkpoint must agree on with the document that resumes from it."""

from __future__ import annotations

from typing import Any

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.uris import uri_references


def identity(spec: TrainSpec) -> dict[str, Any]:
    """All of the document that decides what the weights mean and where in the data a step is.

    Left out is what may change between two lives of a run: where things are stored and by whose credentials, how often
    something is logged, evaluated or saved, what is only reported of the data, and how the work is spread (micro-batches, ZeRO
    stage, precision, attention).
    """
    document = spec.document()
    training = document["training"]
    for address in uri_references(document):
        address.section.pop("credentials", None)
    model = {key: value for key, value in document["model"].items() if key != "attention"}
    data = {key: value for key, value in document["data"].items() if key != "evaluation"}
    data.get("augmentation", {}).get("backTranslation", {}).pop("batchSize", None)
    data["checks"] = spec.data.checks.identity
    kept = (
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
    return {
        "model": model,
        "data": data,
        "objective": document["objective"],
        "method": document["method"],
        "training": {key: training[key] for key in kept if key in training},
    }
