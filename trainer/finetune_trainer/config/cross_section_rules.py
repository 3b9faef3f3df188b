"""The document's rules across sections."""

from __future__ import annotations

from collections.abc import Callable

from finetune_trainer.config.base import Rule
from finetune_trainer.config.methods import ADAPTER_METHODS, INSEPARABLE_METHODS, UNMERGEABLE_METHODS, UNPACKABLE_METHODS
from finetune_trainer.config.metric_rules import metric_rules
from finetune_trainer.config.objectives import CONFIGS, field_of
from finetune_trainer.config.objectives.base import ObjectiveConfig
from finetune_trainer.config.objectives.chat import ChatObjectiveConfig


def _objectives_where(predicate: Callable[[type[ObjectiveConfig]], bool]) -> list[str]:
    """The names of the objectives whose config satisfies the predicate."""
    return [name for name, config in CONFIGS.items() if predicate(config)]


CHAT_OBJECTIVES = _objectives_where(lambda config: issubclass(config, ChatObjectiveConfig))
FEW_SHOT_OBJECTIVES = _objectives_where(lambda config: config.supports_few_shot)
GENERATING_OBJECTIVES = _objectives_where(lambda config: config.generates_text)
IMAGE_OBJECTIVES = _objectives_where(lambda config: config.processor == "ImageProcessor")
LABELED_OBJECTIVES = _objectives_where(lambda config: config.has_labels)
LABEL_SMOOTHING_OBJECTIVES = _objectives_where(lambda config: config.supports_label_smoothing)
PACKABLE_OBJECTIVES = _objectives_where(lambda config: config.packable)
PROMPT_TUNING_OBJECTIVES = _objectives_where(lambda config: config.supports_prompt_tuning)
ROW_COMPARING_OBJECTIVES = _objectives_where(lambda config: config.compares_rows)
SPLITTABLE_OBJECTIVES = _objectives_where(lambda config: config.splittable)

# Parts of CEL expressions.
CONTINUAL_LEARNING = "self.training.continualLearning"
HAS_EVALUATION_DATA = "size(self.data.evaluation) > 0 || has(self.data.evaluationFraction) || has(self.data.folds)"
HAS_PENALTY = f"has({CONTINUAL_LEARNING}) && (has({CONTINUAL_LEARNING}.l2sp) || has({CONTINUAL_LEARNING}.ewc))"
HAS_SINGLE_LABELS = " && ".join(
    f"(!has(self.objective.{field}) || self.objective.{field}.problem == 'SingleLabel')"
    for field in map(field_of, _objectives_where(lambda config: "problem" in config.model_fields))
)
IS_UNSUPERVISED = "(has(self.objective.textContrastive) && self.objective.textContrastive.unsupervised)"
USES_REPLAY_DATA = f"(has({CONTINUAL_LEARNING}.ewc) || has({CONTINUAL_LEARNING}.replay))"

RULES: tuple[Rule, ...] = (
    Rule(
        f"self.objective.type in {IMAGE_OBJECTIVES} || has(self.model.source) || has(self.model.tokenizer)",
        "without model.source there is no tokenizer: set model.tokenizer.source or model.tokenizer.train",
        "model.tokenizer",
    ),
    Rule(
        f"!(self.objective.type in {IMAGE_OBJECTIVES}) || !has(self.model.tokenizer)",
        "an image model has no tokenizer: remove model.tokenizer",
        "model.tokenizer",
    ),
    *(
        Rule(
            f"!has(self.model.source) || !has(self.objective.{field}) || !has(self.objective.{field}.imageSize)",
            "the model's image processor decides the image size: remove imageSize, or model.source",
            f"objective.{field}.imageSize",
        )
        for field in map(field_of, IMAGE_OBJECTIVES)
    ),
    Rule(
        f"!(self.method.type in {ADAPTER_METHODS}) || self.model.initialization == 'Pretrained'",
        "adapters need pretrained weights: set model.initialization: Pretrained, or method.type: Full",
        "method.type",
    ),
    *(
        Rule(
            f"!{is_set} || {HAS_EVALUATION_DATA}",
            "there is no evaluation data: add data.evaluation, data.evaluationFraction or data.folds, or remove "
            f"evaluation.{field}",
            f"evaluation.{field}",
        )
        for field, is_set in (
            ("everySteps", "has(self.evaluation.everySteps)"),
            ("atStart", "self.evaluation.atStart"),
            ("fewShot", "has(self.evaluation.fewShot)"),
        )
    ),
    Rule(
        f"!has(self.evaluation.fewShot) || self.objective.type in {FEW_SHOT_OBJECTIVES}",
        f"few-shot evaluation needs objective.type {' or '.join(FEW_SHOT_OBJECTIVES)}: remove evaluation.fewShot",
        "evaluation.fewShot",
    ),
    Rule(
        "!has(self.evaluation.fewShot) || !has(self.objective.instructionTuning) || "
        "self.objective.instructionTuning.lossOn != 'All'",
        "few-shot evaluation compares answers, and lossOn: All includes questions: remove evaluation.fewShot, or change lossOn",
        "evaluation.fewShot",
    ),
    Rule(
        "!has(self.training.earlyStopping) || has(self.evaluation.everySteps)",
        "early stopping needs evaluations during training: set evaluation.everySteps, or remove training.earlyStopping",
        "training.earlyStopping",
    ),
    Rule(
        f"self.training.labelSmoothing == 0.0 || self.objective.type in {LABEL_SMOOTHING_OBJECTIVES} && {HAS_SINGLE_LABELS}",
        "label smoothing needs a cross entropy over single labels, which this objective does not use: remove "
        "training.labelSmoothing",
        "training.labelSmoothing",
    ),
    Rule(
        "!self.export.best || has(self.evaluation.everySteps)",
        "choosing the best model needs several evaluations: set evaluation.everySteps, or remove export.best",
        "export.best",
    ),
    Rule(
        f"!has(self.evaluation.generation) || self.objective.type in {GENERATING_OBJECTIVES}",
        "a model of this objective does not generate text from a prompt: remove evaluation.generation",
        "evaluation.generation",
    ),
    Rule(
        "self.objective.type != 'MultiTask' || self.export.mergeAdapters",
        "adapters that tasks share can only be exported merged into each task's model: remove export.mergeAdapters",
        "export.mergeAdapters",
    ),
    Rule(
        "self.objective.type != 'MultiTask' || !has(self.method.lora) || size(self.method.lora.frozenAdapters) == 0",
        "frozen adapters need a model with one task: remove method.lora.frozenAdapters, or set another objective.type",
        "method.lora.frozenAdapters",
    ),
    Rule(
        "!has(self.method.lora) || self.method.lora.quantization == 'None' || self.deepspeed.zeroStage < 3",
        "ZeRO stage 3 cannot partition quantized weights: set deepspeed.zeroStage: 2, or remove method.lora.quantization",
        "deepspeed.zeroStage",
    ),
    Rule(
        f"self.method.type != 'PromptTuning' || self.objective.type in {PROMPT_TUNING_OBJECTIVES}",
        "prompt tuning needs an objective that generates text: set another method.type, or objective.type to "
        f"{' or '.join(PROMPT_TUNING_OBJECTIVES)}",
        "method.type",
    ),
    Rule(
        f"!(self.method.type in {UNMERGEABLE_METHODS}) || !self.export.mergeAdapters",
        "virtual tokens cannot be merged into the weights: set export.mergeAdapters: false",
        "export.mergeAdapters",
    ),
    Rule(
        f"!(self.method.type in {INSEPARABLE_METHODS}) || self.export.mergeAdapters",
        "bottleneck adapters cannot be exported separately, because no library loads them: remove export.mergeAdapters",
        "export.mergeAdapters",
    ),
    Rule(
        f"!(self.method.type in {UNPACKABLE_METHODS}) || !has(self.data.packing) || !self.data.packing",
        "virtual tokens cannot precede each text of a packed sequence: remove data.packing",
        "data.packing",
    ),
    Rule(
        f"(size(self.data.replay) > 0) == (has({CONTINUAL_LEARNING}) && {USES_REPLAY_DATA})",
        "data.replay and ewc or replay in training.continualLearning need each other: add one or remove the other",
        "data.replay",
    ),
    Rule(
        f"!({HAS_PENALTY}) || self.method.type == 'Full'",
        "ewc and l2sp penalize changes of weights that this method freezes: set method.type: Full, or only replay in "
        "training.continualLearning",
        "training.continualLearning",
    ),
    Rule(
        f"!({HAS_PENALTY}) || self.deepspeed.zeroStage < 3",
        "ewc and l2sp need whole weights, which ZeRO stage 3 partitions: set deepspeed.zeroStage: 2, or only replay in "
        "training.continualLearning",
        "training.continualLearning",
    ),
    *(
        Rule(
            "size(self.objective.tasks) == 0 ? "
            f"self.data.{split}.all(d, !has(d.task)) : "
            f"self.data.{split}.all(d, has(d.task) && self.objective.tasks.exists(t, t.name == d.task))",
            "each source needs a task of objective.tasks, and none without tasks: set or remove its task",
            f"data.{split}",
        )
        for split in ("train", "evaluation", "replay")
    ),
    Rule(
        "self.objective.tasks.all(t, self.data.train.exists(d, has(d.task) && d.task == t.name))",
        "a task has no training data: add a source with this task to data.train, or remove the task",
        "objective.tasks",
    ),
    *(
        Rule(
            f"self.objective.type in {CHAT_OBJECTIVES} || self.data.{split}.all(d, !has(d.conversation))",
            f"only {' and '.join(CHAT_OBJECTIVES)} read conversations: remove conversation, or set another objective.type",
            f"data.{split}",
        )
        for split in ("train", "evaluation", "replay")
    ),
    Rule(
        f"self.data.resample == 'None' || self.objective.type in {LABELED_OBJECTIVES}",
        "class balancing needs labels, which this objective's rows do not have: remove data.resample",
        "data.resample",
    ),
    Rule(
        f"self.data.resample == 'None' || {HAS_SINGLE_LABELS}",
        "class balancing needs one label for each row: remove data.resample, or set problem: SingleLabel",
        "data.resample",
    ),
    Rule(
        f"!(self.objective.type in {IMAGE_OBJECTIVES}) || !has(self.data.augmentation)",
        "data.augmentation changes texts: remove it, and set the augmentation of the image objective",
        "data.augmentation",
    ),
    Rule(
        "self.objective.type != 'Seq2Seq' || !has(self.data.augmentation)",
        "augmentation would put errors into the targets that the model learns to generate: remove data.augmentation",
        "data.augmentation",
    ),
    Rule(
        f"!has(self.data.packing) || !self.data.packing || self.objective.type in {PACKABLE_OBJECTIVES}",
        "this objective does not support packing: remove data.packing",
        "data.packing",
    ),
    Rule(
        f"!has(self.data.overlong) || self.data.overlong != 'Split' || self.objective.type in {SPLITTABLE_OBJECTIVES}",
        "this objective cannot be trained on parts of a row: set data.overlong to Truncate or Drop",
        "data.overlong",
    ),
    *(
        Rule(
            f"self.objective.type != 'TextContrastive' || {IS_UNSUPERVISED} || "
            f"self.data.{split}.all(d, has(d.columns.textPair))",
            f"each text needs a positive: name its column in columns.textPair of all sources of data.{split}, or set "
            "objective.textContrastive.unsupervised",
            f"data.{split}",
        )
        for split in ("train", "replay")
    ),
    Rule(
        "self.objective.type != 'TextContrastive' || self.data.evaluation.all(d, has(d.columns.textPair))",
        "each text needs a positive: name its column in columns.textPair of all sources of data.evaluation",
        "data.evaluation",
    ),
    Rule(
        f"!{IS_UNSUPERVISED} || self.data.train.all(d, !has(d.columns.textPair)) && "
        "self.data.replay.all(d, !has(d.columns.textPair))",
        "unsupervised training uses single texts: remove columns.textPair of data.train and data.replay, or unsupervised",
        "objective.textContrastive.unsupervised",
    ),
    Rule(
        f"!{IS_UNSUPERVISED} || !(has(self.data.evaluationFraction) || has(self.data.folds))",
        "without dropout both views of a text are equal, so evaluation needs pairs: remove data.evaluationFraction or "
        "data.folds, and set data.evaluation to pairs",
        "data.evaluation",
    ),
    Rule(
        f"!(self.objective.type in {ROW_COMPARING_OBJECTIVES}) || !has({CONTINUAL_LEARNING}) || !has({CONTINUAL_LEARNING}.ewc)",
        "ewc estimates importance on single rows, and this loss compares rows: use training.continualLearning.replay",
        "training.continualLearning.ewc",
    ),
    Rule(
        f"!(self.objective.type in {ROW_COMPARING_OBJECTIVES}) || self.training.batchSize > 1",
        "the loss compares the rows of a batch: set training.batchSize to more than 1",
        "training.batchSize",
    ),
    *metric_rules(),
)
