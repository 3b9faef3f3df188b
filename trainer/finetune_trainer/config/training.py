"""How the optimizer walks, on which DeepSpeed engine, and how often the model is examined."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetune_trainer.config.base import FreeForm, Rule, Section
from finetune_trainer.config.continual_learning import ContinualLearningConfig, ReplayConfig


class OptimizerConfig(Section):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); biases and norms are not decayed."""

    type: Literal["AdamW"] = "AdamW"
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="What the learning rate is multiplied with from each layer to the one below it; the head has the whole "
        "rate, embeddings the lowest (Howard & Ruder 2018, arXiv:1801.06146; Clark et al. 2020, arXiv:2003.10555).",
    )


class ScheduleConfig(Section):
    """Learning rate over the run: a linear warm-up, then a decay to minimumRatio of the peak at the last step."""

    type: Literal["Constant", "Linear", "Cosine"] = "Linear"
    warmup_steps: int | None = Field(None, ge=0, description="Steps of linear warm-up.")
    warmup_ratio: float | None = Field(None, ge=0, le=1, description="The same as a share of all steps.")
    minimum_ratio: float = Field(0.0, ge=0, le=1, description="Learning rate at the end, as a share of the peak.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.warmupSteps) || !has(self.warmupRatio)",
            "the warm-up is given twice: keep either warmupSteps or warmupRatio",
            "warmupRatio",
        ),
    )


class EarlyStoppingConfig(Section):
    """The run ends when evaluations no longer improve in evaluation.metric (Prechelt 1998)."""

    patience: int = Field(3, ge=1, le=10_000, description="Evaluations in a row without improvement that end the run.")
    minimum_change: float = Field(0.0, ge=0, description="An improvement is one by more than this.")


class TrainingConfig(Section):
    """Length of the run, batch sizes, optimizer and numerics."""

    epochs: int | None = Field(None, ge=1, description="Passes over the training data; 1 when maxSteps is absent too.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps, whatever the size of the data.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Sequences in one optimizer step, over all ranks.")
    micro_batch_size: int = Field(
        4, ge=1, le=100_000, description="Sequences one rank computes at once; the rest is gradient accumulation."
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    max_gradient_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this L2 norm; 0 turns it off.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1,
        description="Share of a label's probability that is spread over all labels while training (Szegedy et al. 2016, "
        "arXiv:1512.00567); the evaluation's loss is without it.",
    )  # fmt: skip
    continual_learning: ContinualLearningConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    precision: Literal["Auto", "Float32", "BFloat16", "Float16"] = Field(
        "Auto", description="Numbers used in the model; Auto is BFloat16 on GPUs that have it, else Float32."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Decides initial weights, the order of the data and dropout.")
    log_every_steps: int = Field(10, ge=1, description="A line in the log every so many steps.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.epochs) || !has(self.maxSteps)",
            "the length is given twice: keep either training.epochs or training.maxSteps",
            "maxSteps",
        ),
        Rule(
            "self.batchSize % self.microBatchSize == 0",
            "batchSize must be a multiple of microBatchSize: change one of them",
            "batchSize",
        ),
    )

    @property
    def replay(self) -> ReplayConfig | None:
        """How earlier rows are learnt again, if they are."""
        return self.continual_learning.replay if self.continual_learning else None


class OffloadConfig(Section):
    """What lives in host memory instead of on the GPU (Rajbhandari et al. 2021, arXiv:2104.07857)."""

    optimizer: Literal["None", "CPU"] = Field("None", description="Optimizer state; needs zeroStage 1 or more.")
    parameters: Literal["None", "CPU"] = Field("None", description="Parameters; needs zeroStage 3.")


# Settings of DeepSpeed that follow from other fields of the document, and the field to use instead.
OWNED_BY_DOCUMENT = {
    "train_batch_size": "training.batchSize",
    "train_micro_batch_size_per_gpu": "training.microBatchSize",
    "gradient_accumulation_steps": "training.batchSize and training.microBatchSize",
    "optimizer": "training.optimizer",
    "scheduler": "training.schedule",
    "gradient_clipping": "training.maxGradientNorm",
    "bf16": "training.precision",
    "fp16": "training.precision",
}
OWNED_IN_ZERO = {
    "stage": "deepspeed.zeroStage",
    "offload_optimizer": "deepspeed.offload.optimizer",
    "offload_param": "deepspeed.offload.parameters",
}


class DeepSpeedConfig(Section):
    """The engine underneath: how training state is partitioned over ranks (ZeRO, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        1, description="What is partitioned: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters."
    )
    offload: OffloadConfig = OffloadConfig()
    config: FreeForm = Field(
        default_factory=dict,
        description="More of DeepSpeed's own configuration, merged last; what other fields decide is refused here.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.offload.optimizer == 'None' || self.zeroStage >= 1",
            "ZeRO stage 0 cannot offload the optimizer: set zeroStage to 1, 2 or 3, or remove offload.optimizer",
            "offload.optimizer",
        ),
        Rule(
            "self.offload.parameters == 'None' || self.zeroStage == 3",
            "only ZeRO stage 3 can offload parameters: set zeroStage: 3, or remove offload.parameters",
            "offload.parameters",
        ),
    )

    @model_validator(mode="after")
    def _nothing_is_said_twice(self) -> Self:
        zero = self.config.get("zero_optimization")
        if zero is not None and not isinstance(zero, dict):
            raise ValueError("config.zero_optimization must be a mapping: write its settings below it")
        twice = [(key, field) for key, field in OWNED_BY_DOCUMENT.items() if key in self.config]
        twice += [(f"zero_optimization.{key}", field) for key, field in OWNED_IN_ZERO.items() if key in (zero or {})]
        for key, field in twice:
            raise ValueError(f"config.{key} is decided by {field}: set that and remove this")
        return self


class GenerationConfig(Section):
    """Text the finished model is asked to continue, as a sample in the log and the report."""

    prompts: list[str] = Field(min_length=1, max_length=32)
    max_new_tokens: int = Field(64, ge=1, le=8192)


class FewShotConfig(Section):
    """Solved training rows before each evaluation row (Brown et al. 2020, arXiv:2005.14165)."""

    examples: int = Field(
        ge=1, le=64,
        description="How many, drawn by training.seed from 1,000 of the training rows. A row that would get longer than "
        "data.maxLength has only as many before it as leave it whole; the data report counts such rows.",
    )  # fmt: skip


# Metrics whose names say which way is better; a task's name may stand before one, a label's or a rank after it.
FALLING = ("loss", "perplexity", "mse", "mae", "rmse", "error", "wer", "cer", "ter")
RISING = (
    "accuracy", "precision", "recall", "f1", "microF1", "matthews", "r2", "pearson", "spearman", "auc", "map", "mrr", "ndcg",
    "bleu", "chrf", "meteor", "rouge1", "rouge2", "rougeL", "rougeLsum", "exactMatch", "iou", "top", "margin",
)  # fmt: skip


def _named(names: tuple[str, ...]) -> str:
    return f"^(.*[.])?({'|'.join(names)})([^a-zA-Z].*)?$"


class EvaluationConfig(Section):
    """When the model is measured on the evaluation data; with such data, always once at the end."""

    every_steps: int | None = Field(None, ge=1)
    at_start: bool = Field(False, description="Measure the starting model too, before the first step.")
    few_shot: FewShotConfig | None = Field(
        None,
        description="Measures the starting model before the first step, as atStart does, and once more with solved training "
        "rows before each evaluation row, reported as fewShot.METRIC: what prompting does without fine-tuning.",
    )
    metric: str = Field(
        "loss", min_length=1, max_length=128,
        description="What training.earlyStopping and export.best compare: loss, or another metric that the objective reports.",
    )  # fmt: skip
    goal: Literal["Minimize", "Maximize"] | None = Field(
        None, description="Which way the metric is better; decided by its name when absent."
    )
    generation: GenerationConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"has(self.goal) || self.metric.matches('{_named(FALLING + RISING)}')",
            "the name of this metric does not say which way is better: set evaluation.goal to Minimize or Maximize",
            "metric",
        ),
        Rule(
            "!self.metric.startsWith('fewShot.')",
            "only the starting model is measured with examples before a row: leave out fewShot.",
            "metric",
        ),
    )

    @property
    def measures_start(self) -> bool:
        """Whether the starting model is measured."""
        return self.at_start or self.few_shot is not None

    @property
    def maximizes(self) -> bool:
        """Whether more of the metric is better."""
        if self.goal is not None:
            return self.goal == "Maximize"
        return re.match(_named(RISING), self.metric) is not None
