"""For every rule of the document one job that obeys it and one that breaks it; Python and a real API server judge both."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from finetune_operator.api.crd import schema

ABSENT = object()
"""As a change's value: the field is removed."""

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
TASK: dict[str, Any] = {"name": "a", "type": "SequenceClassification"}
TWO_TASKS: dict[str, Any] = {
    "objective": {"type": "MultiTask", "tasks": [TASK, {"name": "b", "type": "MaskedLM"}]},
    "data__train": [{"source": "file:///a", "task": "a"}, {"source": "file:///b", "task": "b"}],
}
PAIRS = {"source": "file:///pairs", "columns": {"textPair": "other"}}
TRANSLATORS = {"forward": {"source": "hf://organisation/there"}, "back": {"source": "hf://organisation/back"}}
UNSUPERVISED = {"type": "TextContrastive", "textContrastive": {"unsupervised": True}}
PRETRAINED = {"model": {"source": "hf://organisation/name"}}
REHEARSED: dict[str, Any] = {
    "data__earlier": [{"source": "file:///a"}],
    "training__forgetting": {"rehearsal": {"share": 0.2}},
}
PROMPTED: dict[str, Any] = {**PRETRAINED, "method__type": "PromptTuning", "export__mergeAdapters": False}


class Case(NamedTuple):
    """Changes of BASE, field by field; the refused one breaks exactly the rule whose sentence at `field` begins so."""

    field: str
    sentence: str
    accepted: Mapping[str, Any]
    refused: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.field}-{self.sentence}"


def _spec(**changes: Any) -> dict[str, Any]:
    return {"spec." + path.replace("__", "."): value for path, value in changes.items()}


def _few_shot(**changes: Any) -> dict[str, Any]:
    return _spec(**{"evaluation__fewShot": {"examples": 4}, "objective__type": "InstructionTuning"} | changes)


def _contrastive(textContrastive: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    options = {"textContrastive": textContrastive} if textContrastive else {}
    return _spec(objective={"type": "TextContrastive"} | options, data__train=[PAIRS], **changes)


def _address(field: str, good: str, bad: str) -> Case:
    return Case(f"spec.{field}", "begin the address with", {f"spec.{field}": good}, {f"spec.{field}": bad})


IMAGES = _spec(objective__type="ImageClassification", model__tokenizer=ABSENT)
VIEWS = _spec(objective__type="ImageContrastive", model__tokenizer=ABSENT)

CASES = (
    Case("metadata.name", "metadata.name names", {"metadata.name": "a" * 50}, {"metadata.name": "a" * 51}),
    Case("metadata.name", "metadata.name names", {"metadata.name": "a-1"}, {"metadata.name": "1-a"}),
    Case("metadata.name", "metadata.name names", {"metadata.name": "a"}, {"metadata.name": "a.b"}),
    Case(
        "spec.method.type",
        "adapters stand beside weights",
        _spec(model=PRETRAINED["model"], method__type="LoRA"),
        _spec(method__type="LoRA"),
    ),
    Case(
        "spec.evaluation.everySteps",
        "there is nothing to evaluate on",
        _spec(evaluation__everySteps=5, data__folds={"count": 3, "hold": 1}),
        _spec(evaluation__everySteps=5),
    ),
    Case(
        "spec.evaluation.atStart",
        "there is nothing to evaluate on",
        _spec(evaluation__atStart=True, data__evaluationFraction=0.1),
        _spec(evaluation__atStart=True),
    ),
    Case(
        "spec.evaluation.fewShot",
        "there is nothing to evaluate on",
        _few_shot(data__evaluationFraction=0.1),
        _few_shot(),
    ),
    Case(
        "spec.evaluation.fewShot",
        "only rows of InstructionTuning and Seq2Seq can stand behind solved ones",
        _few_shot(objective__type="Seq2Seq", data__evaluationFraction=0.1),
        _few_shot(objective__type="CausalLM", data__evaluationFraction=0.1),
    ),
    Case(
        "spec.evaluation.fewShot",
        "it compares answers",
        _few_shot(objective__instructionTuning={"lossOn": "LastAssistant"}, data__evaluationFraction=0.1),
        _few_shot(objective__instructionTuning={"lossOn": "All"}, data__evaluationFraction=0.1),
    ),
    Case(
        "spec.evaluation.metric",
        "only the starting model is measured with examples",
        _spec(evaluation__metric="accuracy"),
        _spec(evaluation__metric="fewShot.accuracy"),
    ),
    Case(
        "spec.evaluation.generation",
        "a model of this objective does not continue",
        _spec(evaluation__generation={"prompts": ["a"]}, objective__type="InstructionTuning"),
        _spec(evaluation__generation={"prompts": ["a"]}, objective__type="MaskedLM"),
    ),
    Case(
        "spec.method.type",
        "adapters are stored for one task",
        _spec(model=PRETRAINED["model"], method__type="LoRA", objective__type="SequenceClassification"),
        _spec(**TWO_TASKS, model=PRETRAINED["model"], method__type="LoRA"),
    ),
    Case(
        "spec.data.packing",
        "this objective learns from one row",
        _spec(data__packing=True, objective__type="MaskedLM"),
        _spec(data__packing=True, objective__type="SequenceClassification"),
    ),
    Case(
        "spec.data.overlong",
        "this objective cannot learn from parts",
        _spec(data__overlong="Split", objective__type="MaskedLM"),
        _spec(data__overlong="Split", objective__type="SequenceClassification"),
    ),
    Case(
        "spec.objective.instructionTuning",
        "options for InstructionTuning have no effect",
        _spec(objective={"type": "InstructionTuning", "instructionTuning": {"lossOn": "All"}}),
        _spec(objective={"type": "CausalLM", "instructionTuning": {"lossOn": "All"}}),
    ),
    Case(
        "spec.objective.maskedLM",
        "options for MaskedLM have no effect",
        _spec(objective={"type": "MaskedLM", "maskedLM": {"probability": 0.3}}),
        _spec(objective={"type": "CausalLM", "maskedLM": {"probability": 0.3}}),
    ),
    Case(
        "spec.objective.maskedLM.randomShare",
        "maskShare and randomShare are shares",
        _spec(objective={"type": "MaskedLM", "maskedLM": {"maskShare": 0.5, "randomShare": 0.5}}),
        _spec(objective={"type": "MaskedLM", "maskedLM": {"maskShare": 0.75, "randomShare": 0.5}}),
    ),
    Case(
        "spec.objective.nextSentence",
        "options for NextSentence have no effect",
        _spec(objective={"type": "NextSentence", "nextSentence": {"nextSentenceShare": 0.4}}),
        _spec(objective={"type": "MaskedLM", "nextSentence": {"nextSentenceShare": 0.4}}),
    ),
    Case(
        "spec.objective.nextSentence.randomShare",
        "maskShare and randomShare are shares",
        _spec(objective={"type": "NextSentence", "nextSentence": {"maskShare": 0.5, "randomShare": 0.5}}),
        _spec(objective={"type": "NextSentence", "nextSentence": {"maskShare": 0.75, "randomShare": 0.5}}),
    ),
    Case(
        "spec.objective.preferenceTuning",
        "options for PreferenceTuning have no effect",
        _spec(objective={"type": "PreferenceTuning", "preferenceTuning": {"beta": 0.5}}),
        _spec(objective={"type": "InstructionTuning", "preferenceTuning": {"beta": 0.5}}),
    ),
    Case(
        "spec.objective.preferenceTuning.labelSmoothing",
        "only the loss Sigmoid knows of wrong pairs",
        _spec(objective={"type": "PreferenceTuning", "preferenceTuning": {"labelSmoothing": 0.1}}),
        _spec(objective={"type": "PreferenceTuning", "preferenceTuning": {"labelSmoothing": 0.1, "loss": "IPO"}}),
    ),
    Case(
        "spec.objective.denoising",
        "options for Denoising have no effect",
        _spec(objective={"type": "Denoising", "denoising": {"noise": "TextInfilling"}}),
        _spec(objective={"type": "Seq2Seq", "denoising": {"noise": "TextInfilling"}}),
    ),
    Case(
        "spec.objective.denoising.spanCorruption",
        "options for SpanCorruption have no effect",
        _spec(objective={"type": "Denoising", "denoising": {"spanCorruption": {"noiseDensity": 0.5}}}),
        _spec(objective={"type": "Denoising", "denoising": {"noise": "TextInfilling", "spanCorruption": {}}}),
    ),
    Case(
        "spec.objective.denoising.textInfilling",
        "options for TextInfilling have no effect",
        _spec(objective={"type": "Denoising", "denoising": {"noise": "TextInfilling", "textInfilling": {"maskRatio": 0.5}}}),
        _spec(objective={"type": "Denoising", "denoising": {"textInfilling": {}}}),
    ),
    Case(
        "spec.objective.seq2Seq",
        "options for Seq2Seq have no effect",
        _spec(objective={"type": "Seq2Seq", "seq2Seq": {"prefix": "summarize: "}}),
        _spec(objective={"type": "Denoising", "seq2Seq": {"prefix": "summarize: "}}),
    ),
    Case(
        "spec.objective.sequenceClassification",
        "options for SequenceClassification have no effect",
        _spec(objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}}),
        _spec(objective={"type": "MaskedLM", "sequenceClassification": {"problem": "MultiLabel"}}),
    ),
    Case(
        "spec.objective.sequenceClassification.labels",
        "a number has no labels",
        _spec(objective={"type": "SequenceClassification", "sequenceClassification": {"labels": ["a", "b"]}}),
        _spec(
            objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "Regression", "labels": ["a"]}}
        ),
    ),
    Case(
        "spec.data.earlier",
        "data.earlier and elastic or rehearsal of training.forgetting need each other",
        _spec(data__earlier=[{"source": "file:///a"}], training__forgetting={"elastic": {"strength": 1}}),
        _spec(data__earlier=[{"source": "file:///a"}], training__forgetting={"towardStart": 1}),
    ),
    Case(
        "spec.data.earlier",
        "data.earlier and elastic or rehearsal of training.forgetting need each other",
        _spec(training__forgetting={"towardStart": 1}),
        _spec(training__forgetting={"elastic": {"strength": 1}}),
    ),
    Case(
        "spec.data.earlier",
        "data.earlier and elastic or rehearsal of training.forgetting need each other",
        _spec(**REHEARSED),
        _spec(training__forgetting={"rehearsal": {"share": 0.2}}),
    ),
    Case(
        "spec.data.earlier",
        "each source of data serves one task",
        _spec(
            **TWO_TASKS, data__earlier=[{"source": "file:///c", "task": "b"}], training__forgetting={"elastic": {"strength": 1}}
        ),
        _spec(**TWO_TASKS, data__earlier=[{"source": "file:///c"}], training__forgetting={"elastic": {"strength": 1}}),
    ),
    Case(
        "spec.training.forgetting",
        "nothing is asked for",
        _spec(**REHEARSED),
        _spec(training__forgetting={}),
    ),
    Case(
        "spec.training.forgetting",
        "weights that are frozen cannot leave",
        _spec(**REHEARSED, model=PRETRAINED["model"], method__type="LoRA"),
        _spec(model=PRETRAINED["model"], method__type="LoRA", training__forgetting={"towardStart": 0.1}),
    ),
    Case(
        "spec.training.forgetting",
        "ZeRO stage 3 has no rank",
        _spec(**REHEARSED, deepspeed__zeroStage=3),
        _spec(training__forgetting={"towardStart": 0.1}, deepspeed__zeroStage=3),
    ),
    Case(
        "spec.data.earlier[0].source",
        "begin the address with",
        _spec(data__earlier=[{"source": "hf://a/b"}], training__forgetting={"elastic": {"strength": 1}}),
        _spec(data__earlier=[{"source": "a"}], training__forgetting={"elastic": {"strength": 1}}),
    ),
    Case(
        "spec.objective.tasks",
        "several tasks at once need type: MultiTask",
        _spec(**TWO_TASKS),
        _spec(objective={"type": "MultiTask"}),
    ),
    Case(
        "spec.objective.tasks",
        "two tasks have the same name",
        _spec(**TWO_TASKS),
        _spec(objective={"type": "MultiTask", "tasks": [TASK, TASK]}, data__train=[{"source": "file:///a", "task": "a"}]),
    ),
    Case(
        "spec.objective.tasks",
        "a task has nothing to learn from",
        _spec(**TWO_TASKS),
        _spec(**TWO_TASKS | {"data__train": [{"source": "file:///a", "task": "a"}]}),
    ),
    Case(
        "spec.objective.tasks[0].type",
        "this objective cannot share an encoder",
        _spec(**TWO_TASKS),
        _spec(
            objective={"type": "MultiTask", "tasks": [{"name": "a", "type": "CausalLM"}]},
            data__train=[{"source": "file:///a", "task": "a"}],
        ),
    ),
    Case(
        "spec.objective.tasks[0].maskedLM",
        "options for MaskedLM have no effect",
        _spec(**TWO_TASKS),
        _spec(
            objective={"type": "MultiTask", "tasks": [TASK | {"maskedLM": {"probability": 0.5}}]},
            data__train=[{"source": "file:///a", "task": "a"}],
        ),
    ),
    Case(
        "spec.data.train",
        "each source of data serves one task",
        _spec(**TWO_TASKS),
        _spec(data__train=[{"source": "file:///a", "task": "a"}]),
    ),
    Case(
        "spec.data.evaluation",
        "each source of data serves one task",
        _spec(**TWO_TASKS, data__evaluation=[{"source": "file:///c", "task": "b"}]),
        _spec(**TWO_TASKS, data__evaluation=[{"source": "file:///c"}]),
    ),
    Case(
        "spec.objective.textContrastive",
        "options for TextContrastive have no effect",
        _contrastive(textContrastive={"pooling": "CLS"}),
        _spec(objective={"type": "CausalLM", "textContrastive": {"pooling": "CLS"}}),
    ),
    Case(
        "spec.data.train",
        "each text needs the one that goes with it",
        _contrastive(),
        _spec(objective__type="TextContrastive", data__train=[PAIRS, {"source": "file:///texts"}]),
    ),
    Case(
        "spec.data.evaluation",
        "each text needs the one that goes with it",
        _contrastive(data__evaluation=[PAIRS]),
        _contrastive(data__evaluation=[{"source": "file:///texts"}]),
    ),
    Case(
        "spec.objective.textContrastive.unsupervised",
        "pairs are given or made of one text",
        _spec(objective=UNSUPERVISED, data__evaluation=[PAIRS]),
        _spec(objective=UNSUPERVISED, data__train=[PAIRS]),
    ),
    Case(
        "spec.data.evaluation",
        "texts that are held out are seen twice the same",
        _contrastive(data__evaluationFraction=0.1),
        _spec(objective=UNSUPERVISED, data__evaluationFraction=0.1),
    ),
    Case(
        "spec.data.evaluation",
        "texts that are held out are seen twice the same",
        _contrastive(data__folds={"count": 2}),
        _spec(objective=UNSUPERVISED, data__folds={"count": 2}),
    ),
    Case(
        "spec.data.earlier",
        "each text needs the one that goes with it",
        _contrastive(**REHEARSED | {"data__earlier": [PAIRS]}),
        _contrastive(**REHEARSED),
    ),
    Case(
        "spec.objective.textContrastive.unsupervised",
        "pairs are given or made of one text",
        _spec(objective=UNSUPERVISED, **REHEARSED),
        _spec(objective=UNSUPERVISED, **REHEARSED | {"data__earlier": [PAIRS]}),
    ),
    Case(
        "spec.training.forgetting.elastic",
        "importance is measured row by row",
        _contrastive(**REHEARSED | {"data__earlier": [PAIRS]}),
        _contrastive(data__earlier=[PAIRS], training__forgetting={"elastic": {"strength": 1}}),
    ),
    Case(
        "spec.training.batchSize",
        "a row is told from the others",
        _contrastive(training={"batchSize": 2, "microBatchSize": 1}),
        _contrastive(training={"batchSize": 1, "microBatchSize": 1}),
    ),
    Case(
        "spec.training.batchSize",
        "a row is told from the others",
        VIEWS | _spec(training={"batchSize": 2, "microBatchSize": 1}),
        VIEWS | _spec(training={"batchSize": 1, "microBatchSize": 1}),
    ),
    Case(
        "spec.training.forgetting.elastic",
        "importance is measured row by row",
        VIEWS | _spec(**REHEARSED),
        VIEWS | _spec(data__earlier=[{"source": "file:///a"}], training__forgetting={"elastic": {"strength": 1}}),
    ),
    Case(
        "spec.objective.imageContrastive",
        "options for ImageContrastive have no effect",
        VIEWS | _spec(objective__imageContrastive={"temperature": 0.5}),
        IMAGES | _spec(objective__imageContrastive={"temperature": 0.5}),
    ),
    Case(
        "spec.objective.imageContrastive.imageSize",
        "the model's own image processor",
        VIEWS | _spec(objective__imageContrastive={"imageSize": 32}),
        VIEWS | _spec(objective__imageContrastive={"imageSize": 32}, model__source="hf://organisation/name"),
    ),
    Case(
        "spec.objective.imageContrastive.augmentation.randomCrop.minimumArea",
        "minimumArea is more than maximumArea",
        VIEWS | _spec(objective__imageContrastive={"augmentation": {"randomCrop": {"minimumArea": 1}}}),
        VIEWS | _spec(objective__imageContrastive={"augmentation": {"randomCrop": {"minimumArea": 1, "maximumArea": 0.5}}}),
    ),
    Case(
        "spec.objective.imageContrastive.augmentation.trivialAugment",
        "the random operations are chosen twice",
        VIEWS | _spec(objective__imageContrastive={"augmentation": {"trivialAugment": True}}),
        VIEWS | _spec(objective__imageContrastive={"augmentation": {"trivialAugment": True, "randAugment": {}}}),
    ),
    Case(
        "spec.objective.imageContrastive.augmentation",
        "both views of an image would be the same",
        VIEWS | _spec(objective__imageContrastive={"augmentation": {"blur": 0.5}}),
        VIEWS | _spec(objective__imageContrastive={"augmentation": {}}),
    ),
    Case(
        "spec.objective.questionAnswering",
        "options for QuestionAnswering have no effect",
        _spec(objective={"type": "QuestionAnswering", "questionAnswering": {"stride": 64}}),
        _spec(objective={"type": "TokenClassification", "questionAnswering": {"stride": 64}}),
    ),
    Case(
        "spec.objective.tokenClassification",
        "options for TokenClassification have no effect",
        _spec(objective={"type": "TokenClassification", "tokenClassification": {"labels": ["O", "B-PER", "I-PER"]}}),
        _spec(objective={"type": "SequenceClassification", "tokenClassification": {"labels": ["O", "B-PER", "I-PER"]}}),
    ),
    Case(
        "spec.training.batchSize",
        "batchSize must be a multiple of microBatchSize x workers",
        _spec(training__batchSize=24, training__microBatchSize=4, workers__nodes=3, workers__processesPerNode=2),
        _spec(training__batchSize=20, training__microBatchSize=4, workers__nodes=3, workers__processesPerNode=2),
    ),
    Case("spec.model.source", "initialization Pretrained needs", _spec(model=PRETRAINED["model"]), _spec(
        model={"tokenizer": {"source": "hf://organisation/name"}, "config": {"model_type": "llama"}}
    )),
    Case("spec.model.tokenizer", "without model.source", {}, _spec(model__tokenizer=ABSENT)),
    Case(
        "spec.data.resample",
        "only single labels can be balanced",
        IMAGES | _spec(data__resample="Balanced"),
        IMAGES | _spec(data__resample="Balanced", objective__imageClassification={"problem": "MultiLabel"}),
    ),
    Case(
        "spec.data.augmentation",
        "copies would have mistakes in what",
        _spec(data__augmentation={"deletion": 0.1}, objective__type="Denoising"),
        _spec(data__augmentation={"deletion": 0.1}, objective__type="Seq2Seq"),
    ),
    Case(
        "spec.data.augmentation",
        "these copies are made of texts",
        IMAGES | _spec(objective__imageClassification={"augmentation": {"horizontalFlip": 0.5}}),
        IMAGES | _spec(data__augmentation={"deletion": 0.1}),
    ),
    Case(
        "spec.objective.imageClassification.classWeights",
        "only single labels have weights",
        IMAGES | _spec(objective__imageClassification={"classWeights": {"a": 2}}),
        IMAGES | _spec(objective__imageClassification={"classWeights": {"a": 2}, "problem": "MultiLabel"}),
    ),
    Case(
        "spec.objective.imageClassification.classWeights",
        "classes are weighed twice",
        IMAGES | _spec(objective__imageClassification={"classWeighting": "Balanced"}),
        IMAGES | _spec(objective__imageClassification={"classWeights": {"a": 2}, "classWeighting": "Balanced"}),
    ),
    Case("spec.model.tokenizer", "images have no use for a tokenizer", IMAGES, IMAGES | _spec(model__tokenizer={"train": {}})),
    Case(
        "spec.objective.imageClassification.imageSize",
        "the model's own image processor",
        IMAGES | _spec(objective__imageClassification={"imageSize": 32}),
        IMAGES | _spec(objective__imageClassification={"imageSize": 32}, model__source="hf://organisation/name"),
    ),
    Case(
        "spec.objective.imageClassification",
        "options for ImageClassification have no effect",
        IMAGES | _spec(objective__imageClassification={"imageSize": 32}),
        _spec(objective__imageClassification={"imageSize": 32}),
    ),
    Case(
        "spec.objective.imageClassification.labels",
        "a number has no labels",
        IMAGES | _spec(objective__imageClassification={"problem": "Regression"}),
        IMAGES | _spec(objective__imageClassification={"problem": "Regression", "labels": ["a"]}),
    ),
    Case(
        "spec.objective.imageClassification.augmentation.randomCrop.minimumArea",
        "minimumArea is more than maximumArea",
        IMAGES | _spec(objective__imageClassification={"augmentation": {"randomCrop": {"minimumArea": 1}}}),
        IMAGES | _spec(objective__imageClassification={"augmentation": {"randomCrop": {"minimumArea": 1, "maximumArea": 0.5}}}),
    ),
    Case(
        "spec.objective.imageClassification.augmentation.trivialAugment",
        "the random operations are chosen twice",
        IMAGES | _spec(objective__imageClassification={"augmentation": {"trivialAugment": True}}),
        IMAGES | _spec(objective__imageClassification={"augmentation": {"trivialAugment": True, "randAugment": {}}}),
    ),
    Case("spec.model.tokenizer.train", "pretrained weights keep", {}, _spec(
        model__source="hf://organisation/name", model__initialization="Pretrained"
    )),
    Case(
        "spec.model.tokenizer",
        "give either source",
        _spec(model__tokenizer={"source": "hf://organisation/name"}),
        _spec(model__tokenizer__source="hf://organisation/name"),
    ),
    Case("spec.model.tokenizer", "give either source", {}, _spec(model__tokenizer={})),
    Case(
        "spec.data.evaluationFraction",
        "evaluation data is given twice",
        _spec(data__evaluationFraction=0.5),
        _spec(data__evaluationFraction=0.5, data__evaluation=[{"source": "file:///held-out"}]),
    ),
    Case(
        "spec.data.evaluationFraction",
        "evaluation data is given twice",
        _spec(data__folds={"count": 5}),
        _spec(data__folds={"count": 5}, data__evaluationFraction=0.5),
    ),
    Case(
        "spec.data.train",
        "some sources have a weight",
        _spec(data__train=[{"source": "file:///a", "weight": 0.5}, {"source": "file:///b", "weight": 3}]),
        _spec(data__train=[{"source": "file:///a", "weight": 0.5}, {"source": "file:///b"}]),
    ),
    Case(
        "spec.data.evaluation",
        "a weight says how often rows are learnt from",
        _spec(data__evaluation=[{"source": "file:///b"}]),
        _spec(data__evaluation=[{"source": "file:///b", "weight": 1}]),
    ),
    Case(
        "spec.data.resample",
        "sources and labels cannot both",
        _spec(objective__type="SequenceClassification", data__resample="Balanced"),
        _spec(
            objective__type="SequenceClassification", data__resample="Balanced",
            data__train=[{"source": "file:///a", "weight": 1}],
        ),
    ),
    Case(
        "spec.data.resample",
        "rows of this objective have no label",
        _spec(objective__type="SequenceClassification", data__resample="Balanced"),
        _spec(objective__type="MaskedLM", data__resample="Balanced"),
    ),
    Case(
        "spec.data.resample",
        "only single labels can be balanced",
        _spec(objective={"type": "SequenceClassification", "sequenceClassification": {}}, data__resample="Balanced"),
        _spec(
            objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
            data__resample="Balanced",
        ),
    ),
    Case(
        "spec.objective.sequenceClassification.classWeights",
        "only single labels have weights",
        _spec(objective={"type": "SequenceClassification", "sequenceClassification": {"classWeights": {"a": 2}}}),
        _spec(
            objective={
                "type": "SequenceClassification",
                "sequenceClassification": {"problem": "MultiLabel", "classWeighting": "Balanced"},
            }
        ),
    ),
    Case(
        "spec.objective.sequenceClassification.classWeights",
        "classes are weighed twice",
        _spec(objective={"type": "SequenceClassification", "sequenceClassification": {"classWeighting": "Balanced"}}),
        _spec(
            objective={
                "type": "SequenceClassification",
                "sequenceClassification": {"classWeighting": "Balanced", "classWeights": {"a": 2}},
            }
        ),
    ),
    Case(
        "spec.data.augmentation.copies",
        "the copies would be the same",
        _spec(data__augmentation={"synonyms": {"source": "file:///words.json"}}),
        _spec(data__augmentation={"copies": 3}),
    ),
    Case(
        "spec.data.augmentation.copies",
        "the copies would be the same",
        _spec(data__augmentation={"backTranslation": TRANSLATORS}),
        _spec(data__augmentation={"copies": 1}),
    ),
    Case(
        "spec.data.augmentation.copies",
        "without sampling a text has one translation",
        _spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS | {"temperature": 0.7}}),
        _spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS}),
    ),
    Case(
        "spec.data.augmentation.copies",
        "without sampling a text has one translation",
        _spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS, "noise": 0.1}),
        _spec(data__augmentation={"copies": 2, "backTranslation": TRANSLATORS}),
    ),
    *(
        Case(
            f"spec.data.augmentation.backTranslation.{way}.source",
            "begin the address with",
            _spec(data__augmentation={"backTranslation": TRANSLATORS}),
            _spec(data__augmentation={"backTranslation": TRANSLATORS | {way: {"source": "translator"}}}),
        )
        for way in TRANSLATORS
    ),
    Case(
        "spec.data.augmentation.synonyms.source",
        "begin the address with",
        _spec(data__augmentation={"synonyms": {"source": "s3://bucket/words.json"}}),
        _spec(data__augmentation={"synonyms": {"source": "words.json"}}),
    ),
    Case("spec.data.folds.hold", "there is no such fold", _spec(data__folds={"count": 5, "hold": 4}), _spec(
        data__folds={"count": 5, "hold": 5}
    )),
    Case(
        "spec.evaluation.metric",
        "the name of this metric",
        _spec(evaluation__metric="topic.f1[on]"),
        _spec(evaluation__metric="f1ness"),
    ),
    Case(
        "spec.training.earlyStopping",
        "whether the run still improves",
        _spec(training__earlyStopping={}, evaluation__everySteps=1, data__evaluationFraction=0.5),
        _spec(training__earlyStopping={}, data__evaluationFraction=0.5),
    ),
    Case(
        "spec.training.labelSmoothing",
        "this objective's loss is no cross entropy",
        _spec(training__labelSmoothing=0.1, objective={"type": "SequenceClassification", "sequenceClassification": {}}),
        _spec(
            training__labelSmoothing=0.1,
            objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
        ),
    ),
    Case(
        "spec.training.labelSmoothing",
        "this objective's loss is no cross",
        _spec(training__labelSmoothing=0.1, objective={"type": "TokenClassification"}),
        _spec(training__labelSmoothing=0.1, objective={"type": "QuestionAnswering"}),
    ),
    Case(
        "spec.training.labelSmoothing",
        "this objective's loss is no cross entropy",
        IMAGES | _spec(training__labelSmoothing=0.1),
        IMAGES | _spec(training__labelSmoothing=0.1, objective__imageClassification={"problem": "MultiLabel"}),
    ),
    Case(
        "spec.export.best",
        "only one of several evaluations",
        _spec(export__best=True, evaluation__everySteps=1, data__evaluationFraction=0.5),
        _spec(export__best=True, data__evaluationFraction=0.5),
    ),
    Case(
        "spec.method.lora",
        "options for LoRA",
        _spec(model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"rank": 8}}),
        _spec(model=PRETRAINED["model"], method={"type": "Full", "lora": {"rank": 8}}),
    ),
    Case(
        "spec.method.ia3",
        "options for IA3",
        _spec(model=PRETRAINED["model"], method={"type": "IA3", "ia3": {}}),
        _spec(model=PRETRAINED["model"], method={"type": "LoRA", "ia3": {}}),
    ),
    Case(
        "spec.deepspeed.zeroStage",
        "ZeRO stage 3 cannot partition quantised weights",
        _spec(model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"quantization": "NF4"}}, deepspeed__zeroStage=2),
        _spec(model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"quantization": "NF4"}}, deepspeed__zeroStage=3),
    ),
    Case(
        "spec.method.lora.earlier[0].source",
        "begin the address with",
        _spec(**PRETRAINED, method={"type": "LoRA", "lora": {"earlier": [{"source": "s3://a/b"}]}}),
        _spec(**PRETRAINED, method={"type": "LoRA", "lora": {"earlier": [{"source": "a/b"}]}}),
    ),
    Case(
        "spec.method.lora.dora",
        "an adapter with magnitudes does not add up",
        _spec(**PRETRAINED, method={"type": "LoRA", "lora": {"earlier": [{"source": "s3://a/b"}]}}),
        _spec(**PRETRAINED, method={"type": "LoRA", "lora": {"dora": True, "earlier": [{"source": "s3://a/b"}]}}),
    ),
    Case(
        "spec.method.bottleneck",
        "options for Bottleneck",
        _spec(**PRETRAINED, method={"type": "Bottleneck", "bottleneck": {"size": 8}}),
        _spec(**PRETRAINED, method={"type": "LoRA", "bottleneck": {}}),
    ),
    Case(
        "spec.export.mergeAdapters",
        "bottleneck adapters become part of wider layers",
        _spec(**PRETRAINED, method__type="Bottleneck"),
        _spec(**PRETRAINED, method__type="Bottleneck", export__mergeAdapters=False),
    ),
    Case(
        "spec.method.promptTuning",
        "options for PromptTuning",
        _spec(**PROMPTED, method__promptTuning={"virtualTokens": 8}),
        _spec(model=PRETRAINED["model"], method={"type": "LoRA", "promptTuning": {}}),
    ),
    Case(
        "spec.method.type",
        "virtual tokens stand before a text that is continued",
        _spec(**PROMPTED),
        _spec(**PROMPTED, objective__type="MaskedLM"),
    ),
    Case(
        "spec.export.mergeAdapters",
        "virtual tokens cannot be added into the weights",
        _spec(**PROMPTED),
        _spec(**PROMPTED | {"export__mergeAdapters": True}),
    ),
    Case(
        "spec.data.packing",
        "virtual tokens stand before one text only",
        _spec(**PROMPTED, data__packing=False),
        _spec(**PROMPTED, data__packing=True),
    ),
    *(
        Case(
            f"spec.method.{field}",
            "options for Full",
            _spec(method={"type": "Full", field: value}),
            _spec(model=PRETRAINED["model"], method={"type": "LoRA", field: value}),
        )
        for field, value in (("freeze", {"embeddings": True}), ("unfreeze", {"everySteps": 10}))
    ),
    Case("spec.method.freeze", "nothing is frozen", _spec(method__freeze={"layers": 1}), _spec(method__freeze={})),
    Case("spec.training.maxSteps", "the length is given twice", _spec(training__maxSteps=1), _spec(
        training__maxSteps=1, training__epochs=1
    )),
    Case(
        "spec.training.batchSize",
        "batchSize must be a multiple of microBatchSize:",
        _spec(training__batchSize=6, training__microBatchSize=3),
        _spec(training__batchSize=7, training__microBatchSize=3),
    ),
    Case(
        "spec.training.schedule.warmupRatio",
        "the warm-up is given twice",
        _spec(training__schedule={"warmupRatio": 0}),
        _spec(training__schedule={"warmupRatio": 0, "warmupSteps": 0}),
    ),
    Case(
        "spec.deepspeed.offload.optimizer",
        "ZeRO stage 0 cannot offload",
        _spec(deepspeed={"zeroStage": 1, "offload": {"optimizer": "CPU"}}),
        _spec(deepspeed={"zeroStage": 0, "offload": {"optimizer": "CPU"}}),
    ),
    Case(
        "spec.deepspeed.offload.parameters",
        "only ZeRO stage 3 can offload",
        _spec(deepspeed={"zeroStage": 3, "offload": {"parameters": "CPU"}}),
        _spec(deepspeed={"zeroStage": 2, "offload": {"parameters": "CPU"}}),
    ),
    Case(
        "spec.checkpoint.everyMinutes",
        "the interval is given twice",
        _spec(checkpoint__everyMinutes=0.5),
        _spec(checkpoint__everyMinutes=0.5, checkpoint__everySteps=10),
    ),
    Case("spec.model.source", "begin the address with", _spec(model__source="pvc://claim/path"), _spec(
        model__source="organisation/name"
    )),
    Case(
        "spec.model.tokenizer.source",
        "begin the address with",
        _spec(model__tokenizer={"source": "s3://bucket/path"}),
        _spec(model__tokenizer={"source": "http://somewhere/else"}),
    ),
    Case(
        "spec.data.train[0].source",
        "begin the address with",
        _spec(data__train=[{"source": "file:///a/**/*.py"}]),
        _spec(data__train=[{"source": "/a"}]),
    ),
    Case(
        "spec.data.evaluation[0].source",
        "begin the address with",
        _spec(data__evaluation=[{"source": "hf://a/b"}]),
        _spec(data__evaluation=[{"source": "hf://"}]),
    ),
    _address("checkpoint.storage", "file:///mnt/checkpoints", "hf://organisation/name"),
    _address("export.storage", "pvc://claim/model", "model"),
)  # fmt: skip

# A field of spec, its value when the job is created, and another one; only an API server knows both.
TRANSITIONS = (
    ("model", BASE["spec"]["model"], BASE["spec"]["model"] | {"attention": "Eager"}),
    ("data", {"train": [{"source": "file:///a"}]}, {"train": [{"source": "file:///b"}]}),
    ("objective", {"type": "CausalLM"}, ABSENT),
    ("method", {"type": "Full"}, {"type": "LoRA"}),
    ("training", {"seed": 1}, {"seed": 2}),
    ("deepspeed", {"zeroStage": 1}, {"zeroStage": 2}),
    ("evaluation", {}, {"generation": {"prompts": ["a"]}}),
    ("checkpoint", {"storage": "s3://bucket/a"}, {"storage": "s3://bucket/b"}),
    ("export", {}, {"mergeAdapters": False}),
    ("workers", {"nodes": 1}, {"nodes": 2}),
)


def job(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """BASE with changes: the path of a field, dots between names, to its new value."""
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
    """Every rule of the generated CRD with the field its sentence is about."""
    node = schema() if node is None else node
    for rule in node.get("x-kubernetes-validations", ()):
        yield (path + rule.get("fieldPath", "")).lstrip("."), rule
    for name, field in node.get("properties", {}).items():
        yield from declared(field, f"{path}.{name}")
    if "items" in node:
        yield from declared(node["items"], f"{path}[0]")
