"""Builds the cases: a document that satisfies a rule and one that violates it, as changes of a small valid job."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from finetune_operator.codegen.crd import build_schema

ABSENT = object()
"""The value of a change that removes the field."""

BASE: dict[str, Any] = {
    "apiVersion": "finetune-operator.io/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "job", "namespace": "default"},
    "spec": {
        "model": {
            "initialization": "Scratch",
            "config": {"model_type": "llama", "hidden_size": 64},
            "tokenizer": {"train": {"vocabSize": 512}},
        },
        "data": {"train": [{"source": "file:///data"}]},
        "checkpoint": {"storage": "s3://bucket/job"},
    },
}
PRETRAINED = {"model": {"source": "hf://organisation/name"}}
TASK: dict[str, Any] = {"name": "a", "type": "SequenceClassification"}
TWO_TASKS: dict[str, Any] = {
    "objective": {"type": "MultiTask", "tasks": [TASK, {"name": "b", "type": "MaskedLM"}]},
    "data__train": [{"source": "file:///a", "task": "a"}, {"source": "file:///b", "task": "b"}],
}
PAIRS = {"source": "file:///pairs", "columns": {"textPair": "other"}}
UNSUPERVISED = {"type": "TextContrastive", "textContrastive": {"unsupervised": True}}
REPLAYED: dict[str, Any] = {
    "data__replay": [{"source": "file:///a"}],
    "training__continualLearning": {"replay": {"share": 0.2}},
}
PROMPTED: dict[str, Any] = {**PRETRAINED, "method__type": "PromptTuning", "export__mergeAdapters": False}


class Case(NamedTuple):
    """Changes of BASE; `refused` violates exactly the rule of `field` whose message starts with `sentence`."""

    field: str
    sentence: str
    accepted: Mapping[str, Any]
    refused: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the test case."""
        return f"{self.field}-{self.sentence}"


def spec(**changes: Any) -> dict[str, Any]:
    """Changes of fields in spec, with two underscores for each dot."""
    return {"spec." + path.replace("__", "."): value for path, value in changes.items()}


def address(field: str, good: str, bad: str) -> Case:
    """The rule of every address, on this field."""
    return Case(f"spec.{field}", "begin the URI with", {f"spec.{field}": good}, {f"spec.{field}": bad})


def contrastive(textContrastive: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Changes for an objective that needs pairs."""
    options = {"textContrastive": textContrastive} if textContrastive else {}
    return spec(objective={"type": "TextContrastive"} | options, data__train=[PAIRS], **changes)


IMAGES = spec(objective__type="ImageClassification", model__tokenizer=ABSENT)
VIEWS = spec(objective__type="ImageContrastive", model__tokenizer=ABSENT)


def job(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """BASE with changes, which map the dotted path of a field to its new value."""
    result = copy.deepcopy(BASE)
    for path, value in (changes or {}).items():
        node, (*parents, last) = result, path.split(".")
        for name in parents:
            node = node.setdefault(name, {})
        if value is ABSENT:
            node.pop(last, None)
        else:
            node[last] = copy.deepcopy(value)
    return result


def declared(node: Mapping[str, Any] | None = None, path: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Every rule of the generated CRD with the field that its message is about."""
    node = build_schema() if node is None else node
    for rule in node.get("x-kubernetes-validations", ()):
        yield (path + rule.get("fieldPath", "")).lstrip("."), rule
    for name, field in node.get("properties", {}).items():
        yield from declared(field, f"{path}.{name}")
    if "items" in node:
        yield from declared(node["items"], f"{path}[0]")
