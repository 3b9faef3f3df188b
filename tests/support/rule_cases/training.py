"""Cases of training, evaluation and DeepSpeed."""

from __future__ import annotations

from typing import Any

from tests.support.rule_cases.documents import IMAGES, PAIRS, PRETRAINED, REPLAYED, VIEWS, Case, contrastive, spec


def _few_shot(**changes: Any) -> dict[str, Any]:
    return spec(**{"evaluation__fewShot": {"examples": 4}, "objective__type": "InstructionTuning"} | changes)


CASES: tuple[Case, ...] = (
    Case(
        "spec.evaluation.everySteps",
        "there is no evaluation data",
        spec(evaluation__everySteps=5, data__folds={"count": 3, "hold": 1}),
        spec(evaluation__everySteps=5),
    ),
    Case(
        "spec.evaluation.atStart",
        "there is no evaluation data",
        spec(evaluation__atStart=True, data__evaluationFraction=0.1),
        spec(evaluation__atStart=True),
    ),
    Case(
        "spec.evaluation.fewShot",
        "there is no evaluation data",
        _few_shot(data__evaluationFraction=0.1),
        _few_shot(),
    ),
    Case(
        "spec.evaluation.fewShot",
        "few-shot evaluation needs objective.type InstructionTuning or Seq2Seq",
        _few_shot(objective__type="Seq2Seq", data__evaluationFraction=0.1),
        _few_shot(objective__type="CausalLM", data__evaluationFraction=0.1),
    ),
    Case(
        "spec.evaluation.fewShot",
        "few-shot evaluation compares answers",
        _few_shot(objective__instructionTuning={"lossOn": "LastAssistant"}, data__evaluationFraction=0.1),
        _few_shot(objective__instructionTuning={"lossOn": "All"}, data__evaluationFraction=0.1),
    ),
    Case(
        "spec.evaluation.metric",
        "only the starting model has a few-shot evaluation",
        spec(objective__type="MaskedLM", evaluation__metric="accuracy"),
        spec(objective__type="MaskedLM", evaluation__metric="fewShot.accuracy"),
    ),
    Case(
        "spec.evaluation.generation",
        "a model of this objective does not generate text",
        spec(evaluation__generation={"prompts": ["a"]}, objective__type="InstructionTuning"),
        spec(evaluation__generation={"prompts": ["a"]}, objective__type="MaskedLM"),
    ),
    Case(
        "spec.training.continualLearning",
        "no method is chosen",
        spec(**REPLAYED),
        spec(training__continualLearning={}),
    ),
    Case(
        "spec.training.continualLearning",
        "ewc and l2sp penalize changes of weights",
        spec(**REPLAYED, model=PRETRAINED["model"], method__type="LoRA"),
        spec(model=PRETRAINED["model"], method__type="LoRA", training__continualLearning={"l2sp": 0.1}),
    ),
    Case(
        "spec.training.continualLearning",
        "ewc and l2sp need whole weights",
        spec(**REPLAYED, deepspeed__zeroStage=3),
        spec(training__continualLearning={"l2sp": 0.1}, deepspeed__zeroStage=3),
    ),
    Case(
        "spec.training.continualLearning.ewc",
        "ewc estimates importance on single rows",
        contrastive(**REPLAYED | {"data__replay": [PAIRS]}),
        contrastive(data__replay=[PAIRS], training__continualLearning={"ewc": {"strength": 1}}),
    ),
    Case(
        "spec.training.batchSize",
        "the loss compares the rows of a batch",
        contrastive(training={"batchSize": 2, "microBatchSize": 1}),
        contrastive(training={"batchSize": 1, "microBatchSize": 1}),
    ),
    Case(
        "spec.training.batchSize",
        "the loss compares the rows of a batch",
        VIEWS | spec(training={"batchSize": 2, "microBatchSize": 1}),
        VIEWS | spec(training={"batchSize": 1, "microBatchSize": 1}),
    ),
    Case(
        "spec.training.continualLearning.ewc",
        "ewc estimates importance on single rows",
        VIEWS | spec(**REPLAYED),
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
        "the direction of this metric",
        spec(objective__type="PreferenceTuning", evaluation__metric="chosenReward", evaluation__goal="Maximize"),
        spec(objective__type="PreferenceTuning", evaluation__metric="chosenReward"),
    ),
    Case(
        "spec.evaluation.goal",
        "the lower this metric",
        spec(evaluation__metric="perplexity", evaluation__goal="Minimize"),
        spec(evaluation__metric="perplexity", evaluation__goal="Maximize"),
    ),
    Case(
        "spec.evaluation.goal",
        "the higher this metric",
        spec(objective__type="MaskedLM", evaluation__metric="accuracy", evaluation__goal="Maximize"),
        spec(objective__type="MaskedLM", evaluation__metric="accuracy", evaluation__goal="Minimize"),
    ),
    Case(
        "spec.training.earlyStopping",
        "early stopping needs evaluations during training",
        spec(training__earlyStopping={}, evaluation__everySteps=1, data__evaluationFraction=0.5),
        spec(training__earlyStopping={}, data__evaluationFraction=0.5),
    ),
    Case(
        "spec.training.labelSmoothing",
        "label smoothing needs a cross entropy over single labels",
        spec(training__labelSmoothing=0.1, objective={"type": "SequenceClassification", "sequenceClassification": {}}),
        spec(
            training__labelSmoothing=0.1,
            objective={"type": "SequenceClassification", "sequenceClassification": {"problem": "MultiLabel"}},
        ),
    ),
    Case(
        "spec.training.labelSmoothing",
        "label smoothing needs a cross",
        spec(training__labelSmoothing=0.1, objective={"type": "TokenClassification"}),
        spec(training__labelSmoothing=0.1, objective={"type": "QuestionAnswering"}),
    ),
    Case(
        "spec.training.labelSmoothing",
        "label smoothing needs a cross entropy over single labels",
        IMAGES | spec(training__labelSmoothing=0.1),
        IMAGES | spec(training__labelSmoothing=0.1, objective__imageClassification={"problem": "MultiLabel"}),
    ),
    Case(
        "spec.deepspeed.zeroStage",
        "ZeRO stage 3 cannot partition quantized weights",
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
