"""What the document's sections must agree on between them."""

from __future__ import annotations

from finetune_trainer.config.base import Rule
from finetune_trainer.config.methods import ADAPTER_METHODS, INSEPARABLE_METHODS, UNMERGEABLE_METHODS, UNPACKABLE_METHODS
from finetune_trainer.config.objectives import CONFIGS, field_of

COMPARING = [name for name, options in CONFIGS.items() if options.compares]
CONTINUING = [name for name, options in CONFIGS.items() if options.continues]
EVALUATED = "size(self.data.evaluation) > 0 || has(self.data.evaluationFraction) || has(self.data.folds)"
DIVISIBLE = [name for name, options in CONFIGS.items() if options.divisible]
IN_CONTEXT = [name for name, options in CONFIGS.items() if options.in_context]
LABELLED = [name for name, options in CONFIGS.items() if options.labelled]
SMOOTHABLE = [name for name, options in CONFIGS.items() if options.smoothable]
SINGLE_LABEL = " && ".join(
    f"(!has(self.objective.{field}) || self.objective.{field}.problem == 'SingleLabel')"
    for field in (field_of(name) for name, options in CONFIGS.items() if "problem" in options.model_fields)
)
CONTINUAL = "self.training.continualLearning"
PENALIZED = f"has({CONTINUAL}) && (has({CONTINUAL}.l2sp) || has({CONTINUAL}.ewc))"
REREAD = f"(has({CONTINUAL}.ewc) || has({CONTINUAL}.replay))"
PACKABLE = [name for name, options in CONFIGS.items() if options.packable]
UNSUPERVISED = "(has(self.objective.textContrastive) && self.objective.textContrastive.unsupervised)"
ON_IMAGES = [name for name, options in CONFIGS.items() if options.processor == "ImageProcessor"]
PROMPTABLE = [name for name, options in CONFIGS.items() if options.promptable]

RULES: tuple[Rule, ...] = (
    Rule(
        f"self.objective.type in {ON_IMAGES} || has(self.model.source) || has(self.model.tokenizer)",
        "without model.source there is no tokenizer: set model.tokenizer.source or model.tokenizer.train",
        "model.tokenizer",
    ),
    Rule(
        f"!(self.objective.type in {ON_IMAGES}) || !has(self.model.tokenizer)",
        "images have no use for a tokenizer: remove model.tokenizer",
        "model.tokenizer",
    ),
    *(
        Rule(
            f"!has(self.model.source) || !has(self.objective.{field}) || !has(self.objective.{field}.imageSize)",
            "the model's own image processor says to what size: remove imageSize, or model.source",
            f"objective.{field}.imageSize",
        )
        for field in map(field_of, ON_IMAGES)
    ),
    Rule(
        f"!(self.method.type in {ADAPTER_METHODS}) || self.model.initialization == 'Pretrained'",
        "adapters stand beside weights that were learnt before: set model.initialization: Pretrained, or method.type: Full",
        "method.type",
    ),
    *(
        Rule(
            f"!{asked} || {EVALUATED}",
            "there is nothing to evaluate on: add data.evaluation, data.evaluationFraction or data.folds, or remove "
            f"evaluation.{field}",
            f"evaluation.{field}",
        )
        for field, asked in (
            ("everySteps", "has(self.evaluation.everySteps)"),
            ("atStart", "self.evaluation.atStart"),
            ("fewShot", "has(self.evaluation.fewShot)"),
        )
    ),
    Rule(
        f"!has(self.evaluation.fewShot) || self.objective.type in {IN_CONTEXT}",
        f"only rows of {' and '.join(IN_CONTEXT)} can stand behind solved ones: remove evaluation.fewShot",
        "evaluation.fewShot",
    ),
    Rule(
        "!has(self.evaluation.fewShot) || !has(self.objective.instructionTuning) || "
        "self.objective.instructionTuning.lossOn != 'All'",
        "it compares answers, and with lossOn: All questions count too: remove evaluation.fewShot, or change lossOn",
        "evaluation.fewShot",
    ),
    Rule(
        "!has(self.training.earlyStopping) || has(self.evaluation.everySteps)",
        "whether the run still improves shows in evaluations on the way: set evaluation.everySteps, or remove "
        "training.earlyStopping",
        "training.earlyStopping",
    ),
    Rule(
        f"self.training.labelSmoothing == 0.0 || self.objective.type in {SMOOTHABLE} && {SINGLE_LABEL}",
        "this objective's loss is no cross entropy of one label among several: remove training.labelSmoothing",
        "training.labelSmoothing",
    ),
    Rule(
        "!self.export.best || has(self.evaluation.everySteps)",
        "only one of several evaluations can be the best: set evaluation.everySteps, or remove export.best",
        "export.best",
    ),
    Rule(
        f"!has(self.evaluation.generation) || self.objective.type in {CONTINUING}",
        "a model of this objective does not continue a prompt: remove evaluation.generation",
        "evaluation.generation",
    ),
    Rule(
        "self.objective.type != 'MultiTask' || self.export.mergeAdapters",
        "adapters that several tasks share are exported within each task's model: remove export.mergeAdapters",
        "export.mergeAdapters",
    ),
    Rule(
        "self.objective.type != 'MultiTask' || !has(self.method.lora) || size(self.method.lora.frozenAdapters) == 0",
        "frozen adapters stand beside a model of one task: remove method.lora.frozenAdapters, or set another objective.type",
        "method.lora.frozenAdapters",
    ),
    Rule(
        "!has(self.method.lora) || self.method.lora.quantization == 'None' || self.deepspeed.zeroStage < 3",
        "ZeRO stage 3 cannot partition quantised weights: set deepspeed.zeroStage: 2, or remove method.lora.quantization",
        "deepspeed.zeroStage",
    ),
    Rule(
        f"self.method.type != 'PromptTuning' || self.objective.type in {PROMPTABLE}",
        "virtual tokens stand before a text that is continued: set another method.type, or objective.type to "
        f"{' or '.join(PROMPTABLE)}",
        "method.type",
    ),
    Rule(
        f"!(self.method.type in {UNMERGEABLE_METHODS}) || !self.export.mergeAdapters",
        "virtual tokens cannot be added into the weights: set export.mergeAdapters: false",
        "export.mergeAdapters",
    ),
    Rule(
        f"!(self.method.type in {INSEPARABLE_METHODS}) || self.export.mergeAdapters",
        "bottleneck adapters become part of wider layers, and nothing loads them alone: remove export.mergeAdapters",
        "export.mergeAdapters",
    ),
    Rule(
        f"!(self.method.type in {UNPACKABLE_METHODS}) || !has(self.data.packing) || !self.data.packing",
        "virtual tokens stand before one text only: remove data.packing",
        "data.packing",
    ),
    Rule(
        f"(size(self.data.replay) > 0) == (has({CONTINUAL}) && {REREAD})",
        "data.replay and ewc or replay of training.continualLearning need each other: add the one or remove the other",
        "data.replay",
    ),
    Rule(
        f"!({PENALIZED}) || self.method.type == 'Full'",
        "weights that are frozen cannot leave their start: set method.type: Full, or of training.continualLearning only replay",
        "training.continualLearning",
    ),
    Rule(
        f"!({PENALIZED}) || self.deepspeed.zeroStage < 3",
        "ZeRO stage 3 has no rank that sees whole weights: set deepspeed.zeroStage: 2, or of training.continualLearning only "
        "replay",
        "training.continualLearning",
    ),
    *(
        Rule(
            "size(self.objective.tasks) == 0 ? "
            f"self.data.{side}.all(d, !has(d.task)) : "
            f"self.data.{side}.all(d, has(d.task) && self.objective.tasks.exists(t, t.name == d.task))",
            "each source of data serves one task: set its task to a name in objective.tasks, or to nothing without tasks",
            f"data.{side}",
        )
        for side in ("train", "evaluation", "replay")
    ),
    Rule(
        "self.objective.tasks.all(t, self.data.train.exists(d, has(d.task) && d.task == t.name))",
        "a task has nothing to learn from: add a source with its name as task, or remove the task",
        "objective.tasks",
    ),
    Rule(
        f"self.data.resample == 'None' || self.objective.type in {LABELLED}",
        "rows of this objective have no label to be balanced by: remove data.resample",
        "data.resample",
    ),
    Rule(
        f"self.data.resample == 'None' || {SINGLE_LABEL}",
        "only single labels can be balanced: remove data.resample, or set the problem SingleLabel",
        "data.resample",
    ),
    Rule(
        f"!(self.objective.type in {ON_IMAGES}) || !has(self.data.augmentation)",
        "these copies are made of texts: remove data.augmentation, and use that of the objective",
        "data.augmentation",
    ),
    Rule(
        "self.objective.type != 'Seq2Seq' || !has(self.data.augmentation)",
        "copies would have validation_errors in what the model learns to write: remove data.augmentation",
        "data.augmentation",
    ),
    Rule(
        f"!has(self.data.packing) || !self.data.packing || self.objective.type in {PACKABLE}",
        "this objective learns from one row of data at a time: remove data.packing",
        "data.packing",
    ),
    Rule(
        f"!has(self.data.overlong) || self.data.overlong != 'Split' || self.objective.type in {DIVISIBLE}",
        "this objective cannot learn from parts of a row: set data.overlong to Truncate or Drop",
        "data.overlong",
    ),
    *(
        Rule(
            f"self.objective.type != 'TextContrastive' || {UNSUPERVISED} || self.data.{side}.all(d, has(d.columns.textPair))",
            f"each text needs the one that goes with it: name its column in columns.textPair of all of data.{side}, or set "
            "objective.textContrastive.unsupervised",
            f"data.{side}",
        )
        for side in ("train", "replay")
    ),
    Rule(
        "self.objective.type != 'TextContrastive' || self.data.evaluation.all(d, has(d.columns.textPair))",
        "each text needs the one that goes with it: name its column in columns.textPair of all of data.evaluation",
        "data.evaluation",
    ),
    Rule(
        f"!{UNSUPERVISED} || self.data.train.all(d, !has(d.columns.textPair)) && "
        "self.data.replay.all(d, !has(d.columns.textPair))",
        "pairs are given or made of one text: remove columns.textPair of data.train and data.replay, or unsupervised",
        "objective.textContrastive.unsupervised",
    ),
    Rule(
        f"!{UNSUPERVISED} || !(has(self.data.evaluationFraction) || has(self.data.folds))",
        "texts that are held out are seen twice the same without dropout, which measures nothing: remove "
        "data.evaluationFraction or data.folds, and give pairs in data.evaluation",
        "data.evaluation",
    ),
    Rule(
        f"!(self.objective.type in {COMPARING}) || !has({CONTINUAL}) || !has({CONTINUAL}.ewc)",
        "importance is measured row by row, and a row alone is told from nothing: use training.continualLearning.replay",
        "training.continualLearning.ewc",
    ),
    Rule(
        f"!(self.objective.type in {COMPARING}) || self.training.batchSize > 1",
        "a row is told from the others of its step: raise training.batchSize",
        "training.batchSize",
    ),
)
