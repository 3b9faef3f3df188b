"""The part of the document that a checkpoint must agree with before a run resumes from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.uris import uri_references

_TRAINING_FIELDS = (
    "batchSize",
    "optimizer",
    "schedule",
    "maxGradientNorm",
    "labelSmoothing",
    "continualLearning",
    "seed",
)
_DATA_ADDRESS = re.compile(r"spec\.data\.(train|replay)\[\d+\]\.(source|revision)")


class Difference(NamedTuple):
    """A field in which two identities differ; None stands for an absent value."""

    field: str
    stored: Any
    current: Any

    @property
    def is_data_address(self) -> bool:
        """Whether the field only says where training data is, so that the data may be the same nevertheless."""
        return _DATA_ADDRESS.fullmatch(self.field) is not None

    def __str__(self) -> str:
        return f"{self.field} was {_format_value(self.stored)} and is {_format_value(self.current)}"


def identity(spec: TrainSpec) -> dict[str, Any]:
    """All fields that determine what the weights mean and which rows of the data a step reads.

    Excluded are the fields that may change when a run resumes: its length; where objects are stored and with which
    credentials; how often the run logs, evaluates or saves, and when it stops early; checks of the data that only report; and
    how the work is distributed (micro-batches, ZeRO stage, precision, attention).
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


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """The fields in which a stored identity differs from that of the document.

    A field that the schema has only had since the identity was stored differs if it is not at its default.
    """
    return list(_differences(_complete(stored), _to_canonical(current), "spec"))


def _complete(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stored identity as the present schema writes it; as it is if the schema no longer accepts it."""
    try:
        spec = TrainSpec.model_validate({**stored, "checkpoint": {"storage": "file:///unused"}})
    except ValidationError:
        return stored
    return _to_canonical(identity(spec))


def _to_canonical(value: Mapping[str, Any]) -> dict[str, Any]:
    """The identity after a round trip through JSON, so that it can be compared with a stored one."""
    canonical: dict[str, Any] = json.loads(json.dumps(value))
    return canonical


def _differences(stored: Any, current: Any, field: str) -> Iterator[Difference]:
    if isinstance(stored, dict) and isinstance(current, dict):
        for key in sorted(stored.keys() | current.keys()):
            yield from _differences(stored.get(key), current.get(key), f"{field}.{key}")
    elif isinstance(stored, list) and isinstance(current, list) and len(stored) == len(current):
        for index, (old, new) in enumerate(zip(stored, current, strict=True)):
            yield from _differences(old, new, f"{field}[{index}]")
    elif stored != current:
        yield Difference(field, stored, current)


def _format_value(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
