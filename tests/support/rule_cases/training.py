"""How long, how fast, and how it is measured."""

from __future__ import annotations

from typing import Any

from tests.support.rule_cases.documents import IMAGES, PAIRS, PRETRAINED, REHEARSED, VIEWS, Case, contrastive, spec


def _few_shot(**changes: Any) -> dict[str, Any]:
    return spec(**{"evaluation__fewShot": {"examples": 4}, "objective__type": "InstructionTuning"} | changes)


CASES: tuple[Case, ...] = (
    Case(
        "spec.evaluation.everySteps",
        "there is nothing to evaluate on",
        spec(evaluation__everySteps=5, data__folds={"count": 3, "hold": 1}),
        spec(evaluation__everySteps=5),
    ),
    Case(
        "spec.evaluation.atStart",
        "there is nothing to evaluate on",
        spec(evaluation__atStart=True, data__evaluationFraction=0.1),
        spec(evaluation__atStart=True),
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
        spec(evaluation__metric="accuracy"),
        spec(evaluation__metric="fewShot.accuracy"),
    ),
    Case(
        "spec.evaluation.generation",
        "a model of this objective does not continue",
        spec(evaluation__generation={"prompts": ["a"]}, objective__type="InstructionTuning"),
        spec(evaluation__generation={"prompts": ["a"]}, objective__type="MaskedLM"),
    ),
    Case(
        "spec.training.continualLearning",
        "nothing is asked for",
        spec(**REHEARSED),
        spec(training__continualLearning={}),
    ),
    Case(
        "spec.training.continualLearning",
        "weights that are frozen cannot leave",
        spec(**REHEARSED, model=PRETRAINED["model"], method__type="LoRA"),
        spec(model=PRETRAINED["model"], method__type="LoRA", training__continualLearning={"l2sp": 0.1}),
    ),
    Case(
        "spec.training.continualLearning",
        "ZeRO stage 3 has no rank",
        spec(**REHEARSED, deepspeed__zeroStage=3),
        spec(training__continualLearning={"l2sp": 0.1}, deepspeed__zeroStage=3),
    ),
    Case(
        "spec.training.continualLearning.ewc",
        "importance is measured row by row",
        contrastive(**REHEARSED | {"data__replay": [PAIRS]}),
        contrastive(data__replay=[PAIRS], training__continualLearning={"ewc": {"strength": 1}}),
    ),
    Case(
        "spec.training.batchSize",
        "a row is told from the others",
        contrastive(training={"batchSize": 2, "microBatchSize": 1}),
        contrastive(training={"batchSize": 1, "microBatchSize": 1}),
    ),
    Case(
        "spec.training.batchSize",
        "a row is told from the others",
        VIEWS | spec(training={"batchSize": 2, "microBatchSize": 1}),
        VIEWS | spec(training={"batchSize": 1, "microBatchSize": 1}),
    ),
    Case(
        "spec.training.continualLearning.ewc",
        "importance is measured row by row",
        VIEWS | spec(**REHEARSED),
        VIEWS | spec(data__replay=[{"source": "file:///a"}], training__continualLearning={"ewc": {"strength": 1}}),
    ),
    Case(
        "spec.training.batchSize",
        "batchSize must be a multiple of microBatchSize x workers",
        spec(training__batchSize=24, training__microBatchSize=4, workers__nodes=3, workers__processesPerNode=2),
        spec(training__batchSize=20, training__microBatchSize=4, workers__nodes=3, workers__processesPerNode=2),
    ),
    Case(
        "spec.evaluation.metric",
        "the name of this metric",
        spec(evaluation__metric="topic.f1[on]"),
        spec(evaluation__metric="f1ness"),
    ),
    Case(
        "spec.training.earlyStopping",
        "whether the run still improves",
        spec(training__earlyStopping={}, evaluation__everySteps=1, data__evaluationFraction=0.5),
        spec(training__earlyStopping={}, data__evaluationFraction=0.5),
    ),
    Case(
        "spec.training.labelSmoothing",
        "this objective's loss is no cross entropy",
        spec(training__labelSmoothing=0.1, objective={"type": "SequenceClassification", "sequenceClassification": {}}),
        spec(
            training__labelSmoothing=0.1,
            objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
        ),
    ),
    Case(
        "spec.training.labelSmoothing",
        "this objective's loss is no cross",
        spec(training__labelSmoothing=0.1, objective={"type": "TokenClassification"}),
        spec(training__labelSmoothing=0.1, objective={"type": "QuestionAnswering"}),
    ),
    Case(
        "spec.training.labelSmoothing",
        "this objective's loss is no cross entropy",
        IMAGES | spec(training__labelSmoothing=0.1),
        IMAGES | spec(training__labelSmoothing=0.1, objective__imageClassification={"problem": "MultiLabel"}),
    ),
    Case(
        "spec.deepspeed.zeroStage",
        "ZeRO stage 3 cannot partition quantised weights",
        spec(model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"quantization": "NF4"}}, deepspeed__zeroStage=2),
        spec(model=PRETRAINED["model"], method={"type": "LoRA", "lora": {"quantization": "NF4"}}, deepspeed__zeroStage=3),
    ),
    Case("spec.training.maxSteps", "the length is given twice", spec(training__maxSteps=1), spec(
        training__maxSteps=1, training__epochs=1
    )),
    Case(
        "spec.training.batchSize",
        "batchSize must be a multiple of microBatchSize:",
        spec(training__batchSize=6, training__microBatchSize=3),
        spec(training__batchSize=7, training__microBatchSize=3),
    ),
    Case(
        "spec.training.schedule.warmupRatio",
        "the warm-up is given twice",
        spec(training__schedule={"warmupRatio": 0}),
        spec(training__schedule={"warmupRatio": 0, "warmupSteps": 0}),
    ),
    Case(
        "spec.deepspeed.offload.optimizer",
        "ZeRO stage 0 cannot offload",
        spec(deepspeed={"zeroStage": 1, "offload": {"optimizer": "CPU"}}),
        spec(deepspeed={"zeroStage": 0, "offload": {"optimizer": "CPU"}}),
    ),
    Case(
        "spec.deepspeed.offload.parameters",
        "only ZeRO stage 3 can offload",
        spec(deepspeed={"zeroStage": 3, "offload": {"parameters": "CPU"}}),
        spec(deepspeed={"zeroStage": 2, "offload": {"parameters": "CPU"}}),
    ),
)  # fmt: skip
