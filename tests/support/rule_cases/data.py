"""Cases of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support.rule_cases.documents import (
    IMAGES,
    PAIRS,
    PROMPTED,
    REPLAYED,
    TWO_TASKS,
    UNSUPERVISED,
    Case,
    contrastive,
    spec,
)

SPOKEN = {"source": "file:///chats", "conversation": {"roles": {"pupil": "user"}}}
TRANSLATORS = {"forward": {"source": "hf://organisation/there"}, "back": {"source": "hf://organisation/back"}}


def hub_cases(section: str, **settings: Any) -> Iterator[Case]:
    """Cases of the options that only datasets of the hub have, in one of the lists of sources."""
    options: dict[str, Any] = {"subset": "sst2", "dataFiles": ["sst2/*.parquet"]}
    for name, value in options.items():
        hub, file = {"source": "hf://nyu-mll/glue", name: value}, {"source": "file:///a", name: value}
        yield Case(
            f"spec.data.{section}[0].{name}",
            f"only a dataset of the hub has {name}",
            spec(**settings, **{f"data__{section}": [hub]}),
            spec(**settings, **{f"data__{section}": [file]}),
        )


CASES: tuple[Case, ...] = (
    *hub_cases("train"),
    *hub_cases("evaluation"),
    *hub_cases("replay", training__continualLearning={"ewc": {"strength": 1}}),
    Case(
        "spec.data.packing",
        "this objective does not support packing",
        spec(data__packing=True, objective__type="MaskedLM"),
        spec(data__packing=True, objective__type="SequenceClassification"),
    ),
    Case(
        "spec.data.overlong",
        "this objective cannot be trained on parts",
        spec(data__overlong="Split", objective__type="MaskedLM"),
        spec(data__overlong="Split", objective__type="SequenceClassification"),
    ),
    Case(
        "spec.data.replay",
        "data.replay and ewc or replay in training.continualLearning need each other",
        spec(data__replay=[{"source": "file:///a"}], training__continualLearning={"ewc": {"strength": 1}}),
        spec(data__replay=[{"source": "file:///a"}], training__continualLearning={"l2sp": 1}),
    ),
    Case(
        "spec.data.replay",
        "data.replay and ewc or replay in training.continualLearning need each other",
        spec(training__continualLearning={"l2sp": 1}),
        spec(training__continualLearning={"ewc": {"strength": 1}}),
    ),
    Case(
        "spec.data.replay",
        "data.replay and ewc or replay in training.continualLearning need each other",
        spec(**REPLAYED),
        spec(training__continualLearning={"replay": {"share": 0.2}}),
    ),
    Case(
        "spec.data.replay",
        "each source needs a task of objective.tasks",
        spec(
            **TWO_TASKS,
            data__replay=[{"source": "file:///c", "task": "b"}],
            training__continualLearning={"ewc": {"strength": 1}},
        ),
        spec(**TWO_TASKS, data__replay=[{"source": "file:///c"}], training__continualLearning={"ewc": {"strength": 1}}),
    ),
    Case(
        "spec.data.replay[0].source",
        "begin the URI with",
        spec(data__replay=[{"source": "hf://a/b"}], training__continualLearning={"ewc": {"strength": 1}}),
        spec(data__replay=[{"source": "a"}], training__continualLearning={"ewc": {"strength": 1}}),
    ),
    Case(
        "spec.data.train",
        "each source needs a task of objective.tasks",
        spec(**TWO_TASKS),
        spec(data__train=[{"source": "file:///a", "task": "a"}]),
    ),
    Case(
        "spec.data.evaluation",
        "each source needs a task of objective.tasks",
        spec(**TWO_TASKS, data__evaluation=[{"source": "file:///c", "task": "b"}]),
        spec(**TWO_TASKS, data__evaluation=[{"source": "file:///c"}]),
    ),
    Case(
        "spec.data.train",
        "each text needs a positive",
        contrastive(),
        spec(objective__type="TextContrastive", data__train=[PAIRS, {"source": "file:///texts"}]),
    ),
    Case(
        "spec.data.evaluation",
        "each text needs a positive",
        contrastive(data__evaluation=[PAIRS]),
        contrastive(data__evaluation=[{"source": "file:///texts"}]),
    ),
    Case(
        "spec.data.evaluation",
        "without dropout both views of a text are equal",
        contrastive(data__evaluationFraction=0.1),
        spec(objective=UNSUPERVISED, data__evaluationFraction=0.1),
    ),
    Case(
        "spec.data.evaluation",
        "without dropout both views of a text are equal",
        contrastive(data__folds={"count": 2}),
        spec(objective=UNSUPERVISED, data__folds={"count": 2}),
    ),
    Case(
        "spec.data.replay",
        "each text needs a positive",
        contrastive(**REPLAYED | {"data__replay": [PAIRS]}),
        contrastive(**REPLAYED),
    ),
    Case(
        "spec.data.resample",
        "class balancing needs one label for each row",
        IMAGES | spec(data__resample="Balanced"),
        IMAGES | spec(data__resample="Balanced", objective__imageClassification={"problem": "MultiLabel"}),
    ),
    Case(
        "spec.data.augmentation",
        "augmentation would put errors into the targets",
        spec(data__augmentation={"deletion": 0.1}, objective__type="Denoising"),
        spec(data__augmentation={"deletion": 0.1}, objective__type="Seq2Seq"),
    ),
    Case(
        "spec.data.augmentation",
        "data.augmentation changes texts",
        IMAGES | spec(objective__imageClassification={"augmentation": {"horizontalFlip": 0.5}}),
        IMAGES | spec(data__augmentation={"deletion": 0.1}),
    ),
    Case(
        "spec.data.evaluationFraction",
        "evaluation data is given twice",
        spec(data__evaluationFraction=0.5),
        spec(data__evaluationFraction=0.5, data__evaluation=[{"source": "file:///held-out"}]),
    ),
    Case(
        "spec.data.evaluationFraction",
        "evaluation data is given twice",
        spec(data__folds={"count": 5}),
        spec(data__folds={"count": 5}, data__evaluationFraction=0.5),
    ),
    Case(
        "spec.data.train",
        "only InstructionTuning and PreferenceTuning read conversations",
        spec(objective__type="InstructionTuning", data__train=[SPOKEN]),
        spec(data__train=[SPOKEN]),
    ),
    Case(
        "spec.data.evaluation",
        "only InstructionTuning and PreferenceTuning read conversations",
        spec(objective__type="InstructionTuning", data__evaluation=[SPOKEN]),
        spec(data__evaluation=[SPOKEN]),
    ),
    Case(
        "spec.data.replay",
        "only InstructionTuning and PreferenceTuning read conversations",
        spec(objective__type="InstructionTuning", **REPLAYED | {"data__replay": [SPOKEN]}),
        spec(**REPLAYED | {"data__replay": [SPOKEN]}),
    ),
    Case(
        "spec.data.train",
        "some sources have a weight",
        spec(data__train=[{"source": "file:///a", "weight": 0.5}, {"source": "file:///b", "weight": 3}]),
        spec(data__train=[{"source": "file:///a", "weight": 0.5}, {"source": "file:///b"}]),
    ),
    Case(
        "spec.data.evaluation",
        "a weight sets how often training rows are seen",
        spec(data__evaluation=[{"source": "file:///b"}]),
        spec(data__evaluation=[{"source": "file:///b", "weight": 1}]),
    ),
    Case(
        "spec.data.resample",
        "sources and labels cannot both",
        spec(objective__type="SequenceClassification", data__resample="Balanced"),
        spec(
            objective__type="SequenceClassification", data__resample="Balanced",
            data__train=[{"source": "file:///a", "weight": 1}],
        ),
    ),
    Case(
        "spec.data.resample",
        "class balancing needs labels",
        spec(objective__type="SequenceClassification", data__resample="Balanced"),
        spec(objective__type="MaskedLM", data__resample="Balanced"),
    ),
    Case(
        "spec.data.resample",
        "class balancing needs one label for each row",
        spec(objective={"type": "SequenceClassification", "sequenceClassification": {}}, data__resample="Balanced"),
        spec(
            objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
            data__resample="Balanced",
        ),
    ),
    Case(
        "spec.data.augmentation.copies",
        "the copies would equal their rows",
        spec(data__augmentation={"synonyms": {"source": "file:///words.json"}}),
        spec(data__augmentation={"copies": 3}),
    ),
    Case(
        "spec.data.augmentation.copies",
        "the copies would equal their rows",
        spec(data__augmentation={"backTranslation": TRANSLATORS}),
        spec(data__augmentation={"copies": 1}),
    ),
    Case(
        "spec.data.augmentation.copies",
        "without sampling a text has one translation",
        spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS | {"temperature": 0.7}}),
        spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS}),
    ),
    Case(
        "spec.data.augmentation.copies",
        "without sampling a text has one translation",
        spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS, "noise": 0.1}),
        spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS}),
    ),
    *(
        Case(
            f"spec.data.augmentation.backTranslation.{way}.source",
            "begin the URI with",
            spec(data__augmentation={"backTranslation": TRANSLATORS}),
            spec(data__augmentation={"backTranslation": TRANSLATORS | {way: {"source": "translator"}}}),
        )
        for way in TRANSLATORS
    ),
    Case(
        "spec.data.augmentation.synonyms.source",
        "begin the URI with",
        spec(data__augmentation={"synonyms": {"source": "s3://bucket/words.json"}}),
        spec(data__augmentation={"synonyms": {"source": "words.json"}}),
    ),
    Case("spec.data.folds.hold", "there is no such fold", spec(data__folds={"count": 5, "hold": 4}), spec(
        data__folds={"count": 5, "hold": 5}
    )),
    Case(
        "spec.data.packing",
        "virtual tokens cannot precede each text",
        spec(**PROMPTED, data__packing=False),
        spec(**PROMPTED, data__packing=True),
    ),
    Case(
        "spec.data.train[0].source",
        "begin the URI with",
        spec(data__train=[{"source": "file:///a/**/*.py"}]),
        spec(data__train=[{"source": "/a"}]),
    ),
    Case(
        "spec.data.evaluation[0].source",
        "begin the URI with",
        spec(data__evaluation=[{"source": "hf://a/b"}]),
        spec(data__evaluation=[{"source": "hf://"}]),
    ),
)  # fmt: skip
