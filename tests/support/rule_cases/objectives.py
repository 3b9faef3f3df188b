"""Cases of the objective."""

from __future__ import annotations

from tests.support.rule_cases.documents import (
    IMAGES,
    PAIRS,
    REPLAYED,
    TASK,
    TWO_TASKS,
    UNSUPERVISED,
    VIEWS,
    Case,
    contrastive,
    spec,
)

CASES: tuple[Case, ...] = (
    Case(
        "spec.objective.instructionTuning",
        "options for InstructionTuning have no effect",
        spec(objective={"type": "InstructionTuning", "instructionTuning": {"lossOn": "All"}}),
        spec(objective={"type": "CausalLM", "instructionTuning": {"lossOn": "All"}}),
    ),
    Case(
        "spec.objective.maskedLM",
        "options for MaskedLM have no effect",
        spec(objective={"type": "MaskedLM", "maskedLM": {"probability": 0.3}}),
        spec(objective={"type": "CausalLM", "maskedLM": {"probability": 0.3}}),
    ),
    Case(
        "spec.objective.maskedLM.randomShare",
        "maskShare and randomShare are shares",
        spec(objective={"type": "MaskedLM", "maskedLM": {"maskShare": 0.5, "randomShare": 0.5}}),
        spec(objective={"type": "MaskedLM", "maskedLM": {"maskShare": 0.75, "randomShare": 0.5}}),
    ),
    Case(
        "spec.objective.nextSentence",
        "options for NextSentence have no effect",
        spec(objective={"type": "NextSentence", "nextSentence": {"nextSentenceShare": 0.4}}),
        spec(objective={"type": "MaskedLM", "nextSentence": {"nextSentenceShare": 0.4}}),
    ),
    Case(
        "spec.objective.nextSentence.randomShare",
        "maskShare and randomShare are shares",
        spec(objective={"type": "NextSentence", "nextSentence": {"maskShare": 0.5, "randomShare": 0.5}}),
        spec(objective={"type": "NextSentence", "nextSentence": {"maskShare": 0.75, "randomShare": 0.5}}),
    ),
    Case(
        "spec.objective.preferenceTuning",
        "options for PreferenceTuning have no effect",
        spec(objective={"type": "PreferenceTuning", "preferenceTuning": {"beta": 0.5}}),
        spec(objective={"type": "InstructionTuning", "preferenceTuning": {"beta": 0.5}}),
    ),
    Case(
        "spec.objective.preferenceTuning.labelSmoothing",
        "only the loss Sigmoid knows of wrong pairs",
        spec(objective={"type": "PreferenceTuning", "preferenceTuning": {"labelSmoothing": 0.1}}),
        spec(objective={"type": "PreferenceTuning", "preferenceTuning": {"labelSmoothing": 0.1, "loss": "IPO"}}),
    ),
    Case(
        "spec.objective.denoising",
        "options for Denoising have no effect",
        spec(objective={"type": "Denoising", "denoising": {"noise": "TextInfilling"}}),
        spec(objective={"type": "Seq2Seq", "denoising": {"noise": "TextInfilling"}}),
    ),
    Case(
        "spec.objective.denoising.spanCorruption",
        "options for SpanCorruption have no effect",
        spec(objective={"type": "Denoising", "denoising": {"spanCorruption": {"noiseDensity": 0.5}}}),
        spec(objective={"type": "Denoising", "denoising": {"noise": "TextInfilling", "spanCorruption": {}}}),
    ),
    Case(
        "spec.objective.denoising.textInfilling",
        "options for TextInfilling have no effect",
        spec(objective={"type": "Denoising", "denoising": {"noise": "TextInfilling", "textInfilling": {"maskRatio": 0.5}}}),
        spec(objective={"type": "Denoising", "denoising": {"textInfilling": {}}}),
    ),
    Case(
        "spec.objective.seq2Seq",
        "options for Seq2Seq have no effect",
        spec(objective={"type": "Seq2Seq", "seq2Seq": {"prefix": "summarize: "}}),
        spec(objective={"type": "Denoising", "seq2Seq": {"prefix": "summarize: "}}),
    ),
    Case(
        "spec.objective.sequenceClassification",
        "options for SequenceClassification have no effect",
        spec(objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}}),
        spec(objective={"type": "MaskedLM", "sequenceClassification": {"problem": "MultiLabel"}}),
    ),
    Case(
        "spec.objective.sequenceClassification.labels",
        "a regression has no labels",
        spec(objective={"type": "SequenceClassification", "sequenceClassification": {"labels": ["a", "b"]}}),
        spec(
            objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "Regression", "labels": ["a"]}}
        ),
    ),
    Case(
        "spec.objective.tasks",
        "several tasks need type: MultiTask",
        spec(**TWO_TASKS),
        spec(objective={"type": "MultiTask"}),
    ),
    Case(
        "spec.objective.tasks",
        "two tasks have the same name",
        spec(**TWO_TASKS),
        spec(objective={"type": "MultiTask", "tasks": [TASK, TASK]}, data__train=[{"source": "file:///a", "task": "a"}]),
    ),
    Case(
        "spec.objective.tasks",
        "a task has no training data",
        spec(**TWO_TASKS),
        spec(**TWO_TASKS | {"data__train": [{"source": "file:///a", "task": "a"}]}),
    ),
    Case(
        "spec.objective.tasks[0].type",
        "this objective cannot share an encoder",
        spec(**TWO_TASKS),
        spec(
            objective={"type": "MultiTask", "tasks": [{"name": "a", "type": "CausalLM"}]},
            data__train=[{"source": "file:///a", "task": "a"}],
        ),
    ),
    Case(
        "spec.objective.tasks[0].maskedLM",
        "options for MaskedLM have no effect",
        spec(**TWO_TASKS),
        spec(
            objective={"type": "MultiTask", "tasks": [TASK | {"maskedLM": {"probability": 0.5}}]},
            data__train=[{"source": "file:///a", "task": "a"}],
        ),
    ),
    Case(
        "spec.objective.textContrastive",
        "options for TextContrastive have no effect",
        contrastive(textContrastive={"pooling": "CLS"}),
        spec(objective={"type": "CausalLM", "textContrastive": {"pooling": "CLS"}}),
    ),
    Case(
        "spec.objective.textContrastive.unsupervised",
        "unsupervised training uses single texts",
        spec(objective=UNSUPERVISED, data__evaluation=[PAIRS]),
        spec(objective=UNSUPERVISED, data__train=[PAIRS]),
    ),
    Case(
        "spec.objective.textContrastive.unsupervised",
        "unsupervised training uses single texts",
        spec(objective=UNSUPERVISED, **REPLAYED),
        spec(objective=UNSUPERVISED, **REPLAYED | {"data__replay": [PAIRS]}),
    ),
    Case(
        "spec.objective.imageContrastive",
        "options for ImageContrastive have no effect",
        VIEWS | spec(objective__imageContrastive={"temperature": 0.5}),
        IMAGES | spec(objective__imageContrastive={"temperature": 0.5}),
    ),
    Case(
        "spec.objective.imageContrastive.imageSize",
        "the model's image processor decides",
        VIEWS | spec(objective__imageContrastive={"imageSize": 32}),
        VIEWS | spec(objective__imageContrastive={"imageSize": 32}, model__source="hf://organisation/name"),
    ),
    Case(
        "spec.objective.imageContrastive.augmentation.randomCrop.minimumArea",
        "minimumArea is larger than maximumArea",
        VIEWS | spec(objective__imageContrastive={"augmentation": {"randomCrop": {"minimumArea": 1}}}),
        VIEWS | spec(objective__imageContrastive={"augmentation": {"randomCrop": {"minimumArea": 1, "maximumArea": 0.5}}}),
    ),
    Case(
        "spec.objective.imageContrastive.augmentation.trivialAugment",
        "randAugment and trivialAugment both choose random operations",
        VIEWS | spec(objective__imageContrastive={"augmentation": {"trivialAugment": True}}),
        VIEWS | spec(objective__imageContrastive={"augmentation": {"trivialAugment": True, "randAugment": {}}}),
    ),
    Case(
        "spec.objective.imageContrastive.augmentation",
        "both views of an image would be the same",
        VIEWS | spec(objective__imageContrastive={"augmentation": {"blur": 0.5}}),
        VIEWS | spec(objective__imageContrastive={"augmentation": {}}),
    ),
    Case(
        "spec.objective.questionAnswering",
        "options for QuestionAnswering have no effect",
        spec(objective={"type": "QuestionAnswering", "questionAnswering": {"stride": 64}}),
        spec(objective={"type": "TokenClassification", "questionAnswering": {"stride": 64}}),
    ),
    Case(
        "spec.objective.tokenClassification",
        "options for TokenClassification have no effect",
        spec(objective={"type": "TokenClassification", "tokenClassification": {"labels": ["O", "B-PER", "I-PER"]}}),
        spec(objective={"type": "SequenceClassification", "tokenClassification": {"labels": ["O", "B-PER", "I-PER"]}}),
    ),
    Case(
        "spec.objective.imageClassification.classWeights",
        "only single labels have weights",
        IMAGES | spec(objective__imageClassification={"classWeights": {"a": 2}}),
        IMAGES | spec(objective__imageClassification={"classWeights": {"a": 2}, "problem": "MultiLabel"}),
    ),
    Case(
        "spec.objective.imageClassification.classWeights",
        "classWeighting and classWeights exclude each other",
        IMAGES | spec(objective__imageClassification={"classWeighting": "Balanced"}),
        IMAGES | spec(objective__imageClassification={"classWeights": {"a": 2}, "classWeighting": "Balanced"}),
    ),
    Case(
        "spec.objective.imageClassification.imageSize",
        "the model's image processor decides",
        IMAGES | spec(objective__imageClassification={"imageSize": 32}),
        IMAGES | spec(objective__imageClassification={"imageSize": 32}, model__source="hf://organisation/name"),
    ),
    Case(
        "spec.objective.imageClassification",
        "options for ImageClassification have no effect",
        IMAGES | spec(objective__imageClassification={"imageSize": 32}),
        spec(objective__imageClassification={"imageSize": 32}),
    ),
    Case(
        "spec.objective.imageClassification.labels",
        "a regression has no labels",
        IMAGES | spec(objective__imageClassification={"problem": "Regression"}),
        IMAGES | spec(objective__imageClassification={"problem": "Regression", "labels": ["a"]}),
    ),
    Case(
        "spec.objective.imageClassification.augmentation.randomCrop.minimumArea",
        "minimumArea is larger than maximumArea",
        IMAGES | spec(objective__imageClassification={"augmentation": {"randomCrop": {"minimumArea": 1}}}),
        IMAGES | spec(objective__imageClassification={"augmentation": {"randomCrop": {"minimumArea": 1, "maximumArea": 0.5}}}),
    ),
    Case(
        "spec.objective.imageClassification.augmentation.trivialAugment",
        "randAugment and trivialAugment both choose random operations",
        IMAGES | spec(objective__imageClassification={"augmentation": {"trivialAugment": True}}),
        IMAGES | spec(objective__imageClassification={"augmentation": {"trivialAugment": True, "randAugment": {}}}),
    ),
    Case(
        "spec.objective.sequenceClassification.classWeights",
        "only single labels have weights",
        spec(objective={"type": "SequenceClassification", "sequenceClassification": {"classWeights": {"a": 2}}}),
        spec(
            objective={
                "type": "SequenceClassification",
                "sequenceClassification": {"problem": "MultiLabel", "classWeighting": "Balanced"},
            }
        ),
    ),
    Case(
        "spec.objective.sequenceClassification.classWeights",
        "classWeighting and classWeights exclude each other",
        spec(objective={"type": "SequenceClassification", "sequenceClassification": {"classWeighting": "Balanced"}}),
        spec(
            objective={
                "type": "SequenceClassification",
                "sequenceClassification": {"classWeighting": "Balanced", "classWeights": {"a": 2}},
            }
        ),
    ),
)  # fmt: skip
