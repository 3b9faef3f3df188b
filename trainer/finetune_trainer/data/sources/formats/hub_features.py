"""The class names in the features that the Hugging Face hub stores in the schema of its tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

Decode = Callable[[Any], Any]
_SCHEMA_KEY = b"huggingface"


def features_of(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """The features in the metadata of an Arrow schema; empty if there are none."""
    try:
        features = json.loads((metadata or {})[_SCHEMA_KEY])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def class_name_decoders(features: Mapping[str, Any]) -> dict[str, Decode]:
    """For each column that holds class numbers, a function that replaces them in a value with the classes' names."""
    decoders = {}
    for column, feature in features.items():
        if decode := _decoder(feature):
            decoders[column] = decode
    return decoders


def _decoder(feature: Any) -> Decode | None:
    match feature:
        case {"_type": "ClassLabel", "names": [*names]} if names:
            return partial(_class_name, names)
        case {"_type": str(), "feature": item} | [item]:
            return _decoder(item)
        case {"_type": str()}:
            return None
        case dict():
            members = class_name_decoders(feature)
            return partial(_decode_members, members) if members else None
    return None


def _class_name(names: Sequence[str], value: Any) -> Any:
    if isinstance(value, list):
        return [_class_name(names, item) for item in value]
    # -1 marks a row without a label.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _decode_members(members: Mapping[str, Decode], value: Any) -> Any:
    """Decode the members of an object, of each object of a list, or of an object of lists."""
    if isinstance(value, list):
        return [_decode_members(members, item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: members[name](item) if name in members else item for name, item in value.items()}
