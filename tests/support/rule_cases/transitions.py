"""Changes of an existing job: which are refused always, and which only while it is not suspended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.support.rule_cases.documents import ABSENT, PRETRAINED, spec


class Transition(NamedTuple):
    """A change of a job; the rule of `field` refuses it, unless the change is mutable and the job suspended."""

    field: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    is_mutable: bool = False

    @property
    def name(self) -> str:
        """The name of the test case."""
        return f"{self.field}-{'-'.join(self.after).replace('spec.', '')}"


def fixed(field: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Transition:
    """A change that is always refused."""
    return Transition(f"spec.{field}", before, after)


def mutable(section: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Transition:
    """A change that is refused while the job is not suspended."""
    return Transition(f"spec.{section}", before, after, is_mutable=True)


def sources(**fields: Any) -> list[dict[str, Any]]:
    """A list of two datasets, the second one with these fields."""
    return [{"source": "file:///a"}, {"source": "file:///b"} | fields]


BACK = {"source": "hf://organisation/back"}
REPLAY = spec(training__continualLearning={"replay": {"share": 0.2}})
AUGMENTED = {"synonyms": {"source": "file:///words.json"}, "backTranslation": {"forward": BACK, "back": BACK}}


def augmented(part: str, **fields: Any) -> dict[str, Any]:
    """Augmentation with fields added to one of its parts."""
    synonyms, translation = AUGMENTED["synonyms"], AUGMENTED["backTranslation"]
    match part:
        case "synonyms":
            synonyms = synonyms | fields
        case "backTranslation":
            translation = translation | fields
        case _:
            translation = translation | {part: BACK | fields}
    return spec(data__augmentation={"synonyms": synonyms, "backTranslation": translation})


HUB = spec(**PRETRAINED)
TOKENIZER_URI = "hf://organisation/tokenizer"
TOKENIZER = spec(model={"source": "hf://organisation/name", "tokenizer": {"source": TOKENIZER_URI}})

TRANSITIONS: tuple[Transition, ...] = (
    fixed("model", HUB, HUB | spec(model={"source": "hf://organisation/other"})),
    fixed("model", HUB, TOKENIZER),
    fixed("model", {}, spec(model__config={"model_type": "llama", "hidden_size": 128})),
    fixed("model", {}, spec(model__config={"model_type": "llama", "other": 64})),
    fixed(
        "model",
        spec(model__config={"model_type": "llama", "a": {"b": 1}}),
        spec(model__config={"model_type": "llama", "a": {"c": 1}}),
    ),
    fixed("data.train", spec(data__train=sources()), spec(data__train=sources(columns={"text": "body"}))),
    fixed("data.train", spec(data__train=sources()), spec(data__train=sources(format="CSV"))),
    fixed("data.train", spec(data__train=sources()), spec(data__train=sources()[::-1])),
    fixed("data.train", spec(data__train=sources()), spec(data__train=sources()[:1])),
    fixed(
        "data.replay",
        REPLAY | spec(data__replay=sources()),
        REPLAY | spec(data__replay=sources(columns={"text": "body"})),
    ),
    fixed("data.evaluationFraction", {}, spec(data__evaluationFraction=0.1)),
    fixed("data.folds", spec(data__folds={"count": 5}), spec(data__folds={"count": 5, "hold": 1})),
    fixed("data.maxLength", {}, spec(data__maxLength=128)),
    fixed("data.packing", {}, spec(data__packing=False)),
    fixed("data.overlong", {}, spec(data__overlong="Drop")),
    fixed("data.resample", spec(objective__type="SequenceClassification"), spec(
        objective__type="SequenceClassification", data__resample="Balanced"
    )),
    fixed("data.augmentation", spec(data__augmentation={"swap": 0.1}), spec(data__augmentation={"swap": 0.2})),
    fixed("data.augmentation", {}, spec(data__augmentation={"swap": 0.1})),
    fixed("data.augmentation", augmented("synonyms"), augmented("synonyms", share=0.5)),
    fixed("data.augmentation", augmented("forward"), augmented("forward", revision="main")),
    mutable("data", spec(data__train=sources()), spec(data__train=sources(credentials="storage"))),
    mutable(
        "data",
        REPLAY | spec(data__replay=sources(credentials="storage")),
        REPLAY | spec(data__replay=sources(credentials="other")),
    ),
    mutable("data", {}, spec(data__evaluation=[{"source": "file:///evaluation"}])),
    mutable("data", {}, spec(data__checks__duplicates="Fail")),
    mutable("data", {}, spec(data__checks__truncation="Fail")),
    mutable("data", augmented("synonyms"), augmented("synonyms", credentials="words")),
    mutable("data", augmented("backTranslation"), augmented("backTranslation", batchSize=8)),
    mutable("data", augmented("forward"), augmented("forward", credentials="hub")),
    mutable("data", augmented("back", credentials="hub"), augmented("back")),
    fixed("data.checks.duplicates", {}, spec(data__checks__duplicates="Drop")),
    fixed("data.checks.duplicates", spec(data__checks__duplicates="Drop"), {}),
    fixed("data.checks.nearDuplicates", {}, spec(data__checks__nearDuplicates="Drop")),
    fixed("data.checks.leakage", {}, spec(data__checks__leakage="Drop")),
    fixed("data.checks.personalData", {}, spec(data__checks__personalData="Scrub")),
    fixed(
        "data.checks.comparedRows",
        spec(data__checks__leakage="Drop"),
        spec(data__checks={"leakage": "Drop", "comparedRows": 10}),
    ),
    fixed(
        "data.checks.personalDataDetector",
        spec(data__checks__personalData="Scrub"),
        spec(data__checks={"personalData": "Scrub", "personalDataDetector": "Presidio"}),
    ),
    fixed("objective", {}, spec(objective__type="MaskedLM")),
    fixed("method", HUB | spec(method__type="Full"), HUB | spec(method__type="LoRA")),
    fixed("training.batchSize", {}, spec(training__batchSize=64)),
    fixed("training.optimizer", {}, spec(training__optimizer__learningRate=0.1)),
    fixed("training.schedule", {}, spec(training__schedule__type="Cosine")),
    fixed("training.maxGradientNorm", {}, spec(training__maxGradientNorm=2)),
    fixed("training.labelSmoothing", {}, spec(training__labelSmoothing=0.1)),
    fixed(
        "training.continualLearning",
        REPLAY | spec(data__replay=sources()),
        spec(training__continualLearning={"replay": {"share": 0.3}}, data__replay=sources()),
    ),
    fixed("training.seed", {}, spec(training__seed=1)),
    mutable("training", spec(training__epochs=2), spec(training__epochs=3)),
    mutable("training", spec(training__maxSteps=10), spec(training__maxSteps=20)),
    mutable("training", spec(training__epochs=2), spec(training__maxSteps=20)),
    mutable("training", {}, spec(training__microBatchSize=8)),
    mutable("training", {}, spec(training__precision="Float32")),
    mutable("training", {}, spec(training__gradientCheckpointing=True)),
    mutable("training", {}, spec(training__logEverySteps=1)),
    mutable("training", {}, spec(training__lossAnomaly={"action": "SkipStep"})),
    mutable(
        "training",
        spec(evaluation__everySteps=5, data__evaluation=sources(), training__earlyStopping={}),
        spec(evaluation__everySteps=5, data__evaluation=sources(), training__earlyStopping={"patience": 9}),
    ),
    mutable("deepspeed", {}, spec(deepspeed__zeroStage=2)),
    mutable("evaluation", {}, spec(evaluation__generation={"prompts": ["a"]})),
    fixed("checkpoint.storage", {}, spec(checkpoint__storage="s3://bucket/other")),
    mutable("checkpoint", {}, spec(checkpoint__credentials="storage")),
    mutable("checkpoint", {}, spec(checkpoint__everySteps=10)),
    mutable("checkpoint", {}, spec(checkpoint__everyMinutes=10)),
    mutable("checkpoint", {}, spec(checkpoint__keepLast=5)),
    mutable("export", {}, spec(export__storage="s3://bucket/model")),
    mutable("scheduling", spec(scheduling__queueName="a"), spec(scheduling__queueName="b")),
    fixed("managedBy", {}, spec(managedBy="example.com/controller")),
    mutable("workers.nodes", {}, spec(workers__nodes=2)),
    mutable("workers", spec(workers__nodes=2), spec(workers__nodes=2, workers__minNodes=1)),
    mutable(
        "scheduling.queueName",
        spec(workers__nodes=2, workers__minNodes=1, scheduling__queueName="a"),
        spec(workers__nodes=1, workers__minNodes=1, scheduling__queueName="a"),
    ),
    mutable("workers", {}, spec(workers__image="mine:2")),
    mutable("workers", {}, spec(workers__resources={"limits": {"memory": "1Gi"}})),
    mutable("workers", {}, spec(workers__template={"env": [{"name": "A", "value": "1"}]})),
    mutable(
        "workers",
        spec(workers__template={"affinity": {"nodeAffinity": {"a": 1}}}),
        spec(workers__template={"affinity": {"nodeAffinity": {"b": 1}}}),
    ),
)  # fmt: skip
UNCHANGED: tuple[Mapping[str, Any], ...] = ({}, HUB, TOKENIZER, augmented("synonyms"), spec(objective=ABSENT))
"""Documents that a replacement with the same document does not change."""
