"""Length and optimizer of a run, its DeepSpeed engine and its evaluations."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetune_trainer.config.base import FreeForm, Rule, Section
from finetune_trainer.config.continual_learning import ContinualLearningConfig, ReplayConfig
from finetune_trainer.config.deepspeed_settings import setting_errors


class OptimizerConfig(Section):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); biases, norms and other vectors are not decayed."""

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
        description="Factor of the learning rate from each layer to the one below it; the head has the full rate, "
        "embeddings the lowest (Howard & Ruder 2018, arXiv:1801.06146; Clark et al. 2020, arXiv:2003.10555).",
    )


class ScheduleConfig(Section):
    """The learning rate over the run, as in transformers: a linear warm-up from 0, then a decay to minimumRatio of the peak,
    which it would reach one step after the last."""

    type: Literal["Constant", "Linear", "Cosine"] = "Linear"
    warmup_steps: int | None = Field(None, ge=0, description="Number of linear warm-up steps.")
    warmup_ratio: float | None = Field(None, ge=0, le=1, description="Number of linear warm-up steps as a share of all steps.")
    minimum_ratio: float = Field(0.0, ge=0, le=1, description="Learning rate that the decay ends at, as a share of the peak.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.warmupSteps) || !has(self.warmupRatio)",
            "the warm-up is given twice: keep either warmupSteps or warmupRatio",
            "warmupRatio",
        ),
    )


class EarlyStoppingConfig(Section):
    """Stops the run when evaluation.metric no longer improves (Prechelt 1998)."""

    patience: int = Field(
        3, ge=1, le=10_000, description="Number of consecutive evaluations without improvement after which the run stops."
    )
    minimum_change: float = Field(0.0, ge=0, description="Smaller changes of the metric do not count as improvement.")


class LossAnomalyConfig(Section):
    """What follows a loss or a gradient norm that is NaN or infinite, or a loss that is far above the losses before it.

    The weights are never updated with such a gradient. Overflows that Float16's loss scaling handles are none.
    """

    action: Literal["Fail", "SkipStep", "RollBack"] = Field(
        "Fail",
        description="Fail ends the job. SkipStep goes on with the next batch and unchanged weights; the step counts. RollBack "
        "returns to the newest checkpoint and skips all batches since then (Chowdhery et al. 2022, arXiv:2204.02311).",
    )
    max_consecutive: int = Field(
        5, ge=1, le=1000,
        description="Number of consecutive steps that may be skipped, or of returns to the same checkpoint; one more anomaly "
        "fails the job.",
    )  # fmt: skip
    spike_ratio: float | None = Field(
        None, gt=1,
        description="A loss above this multiple of the median of the last 100 losses is an anomaly too, once there are 20; "
        "spikes are not looked for by default.",
    )  # fmt: skip


class TrainingConfig(Section):
    """Length of the run, batch sizes, optimizer and precision."""

    epochs: int | None = Field(None, ge=1, description="Passes over the training data; 1 if maxSteps is absent too.")
    max_steps: int | None = Field(None, ge=1, description="Number of optimizer steps, independent of the size of the data.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Sequences per optimizer step over all ranks.")
    micro_batch_size: int = Field(
        4,
        ge=1,
        le=100_000,
        description="Sequences that one rank computes at once; gradients of the rest of a batch are accumulated.",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    max_gradient_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this L2 norm; 0 turns it off.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1,
        description="Share of a label's probability that is spread over all labels in training (Szegedy et al. 2016, "
        "arXiv:1512.00567); the evaluation loss does not use it.",
    )  # fmt: skip
    continual_learning: ContinualLearningConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    loss_anomaly: LossAnomalyConfig = LossAnomalyConfig()
    precision: Literal["Auto", "Float32", "BFloat16", "Float16"] = Field(
        "Auto", description="Precision of the model's numbers; Auto is BFloat16 on GPUs that support it, else Float32."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass to save memory.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Seed of new weights, of the order of the data and of dropout.")
    log_every_steps: int = Field(10, ge=1, description="Steps between lines in the log.")

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
        """The replay of earlier data; None without it."""
        return self.continual_learning.replay if self.continual_learning else None


class OffloadConfig(Section):
    """State that is kept in host memory instead of GPU memory (Rajbhandari et al. 2021, arXiv:2104.07857)."""

    optimizer: Literal["None", "CPU"] = Field("None", description="Optimizer state; needs zeroStage 1 or more.")
    parameters: Literal["None", "CPU"] = Field("None", description="Parameters; needs zeroStage 3.")


class DeepSpeedConfig(Section):
    """The DeepSpeed engine: how training state is partitioned over the ranks (ZeRO, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        1, description="What is partitioned: 0 nothing, 1 optimizer state, 2 also gradients, 3 also parameters."
    )
    offload: OffloadConfig = OffloadConfig()
    config: FreeForm = Field(
        default_factory=dict,
        description="Additional DeepSpeed configuration, merged last; settings that other fields decide are rejected, and "
        "so is auto.",
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
    def _validate_config(self) -> Self:
        # CEL cannot read free-form fields, so the API server does not check this rule.
        if errors := setting_errors(self.config):
            raise ValueError("; ".join(errors))
        return self


class GenerationConfig(Section):
    """Prompts that the finished model continues, as samples in the log and the reports."""

    prompts: list[str] = Field(min_length=1, max_length=32)
    max_new_tokens: int = Field(64, ge=1, le=8192)


class FewShotConfig(Section):
    """Few-shot evaluation: solved training rows before each evaluation row (Brown et al. 2020, arXiv:2005.14165)."""

    examples: int = Field(
        ge=1, le=64,
        description="Number of solved rows, sampled with training.seed from 1,000 of the training rows. A row that would "
        "exceed data.maxLength has fewer of them, so that it is not cut; the data report counts such rows.",
    )  # fmt: skip


FOREIGN_PREFIX = "eval_"
"""The prefix of metrics of transformers' Trainer, which no metric has here."""
# Metrics for which lower or higher is better. A task's name can precede one, a label's name or a rank can follow it.
LOWER_IS_BETTER = ("loss", "perplexity", "mse", "mae", "rmse", "error", "wer", "cer", "ter")
HIGHER_IS_BETTER = (
    "accuracy", "tokenAccuracy", "precision", "recall", "f1", "microF1", "matthews", "r2", "pearson", "spearman", "auc", "map",
    "mrr", "ndcg", "bleu", "chrf", "meteor", "rouge1", "rouge2", "rougeL", "rougeLsum", "exactMatch", "iou", "top", "margin",
)  # fmt: skip


def _metric_pattern(names: tuple[str, ...]) -> str:
    return f"^(.*[.])?({'|'.join(names)})([^a-zA-Z].*)?$"


class EvaluationConfig(Section):
    """Evaluation of the model on the evaluation data; with such data, always once at the end."""

    every_steps: int | None = Field(None, ge=1, description="Optimizer steps between evaluations.")
    at_start: bool = Field(False, description="Also evaluate the starting model, before the first step.")
    few_shot: FewShotConfig | None = Field(
        None,
        description="Evaluates the starting model before the first step, as atStart does, and again with solved training rows "
        "before each evaluation row, reported as fewShot.METRIC: the effect of prompting without fine-tuning.",
    )
    metric: str = Field(
        "loss", min_length=1, max_length=128,
        description="The metric that training.earlyStopping and export.best compare: loss, or another one that the objective "
        "reports.",
    )  # fmt: skip
    goal: Literal["Minimize", "Maximize"] | None = Field(
        None, description="Whether a lower or a higher metric is better; by default its name decides."
    )
    generation: GenerationConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"has(self.goal) || self.metric.startsWith('{FOREIGN_PREFIX}') || "
            f"self.metric.matches('{_metric_pattern(LOWER_IS_BETTER + HIGHER_IS_BETTER)}')",
            "the direction of this metric is unknown: set evaluation.goal to Minimize or Maximize",
            "metric",
        ),
        *(
            Rule(
                f"!has(self.goal) || self.goal == '{goal}' || !self.metric.matches('{_metric_pattern(names)}')",
                f"the {better} this metric, the better the model: remove goal",
                "goal",
            )
            for goal, better, names in (("Minimize", "lower", LOWER_IS_BETTER), ("Maximize", "higher", HIGHER_IS_BETTER))
        ),
        Rule(
            "!self.metric.startsWith('fewShot.')",
            "only the starting model has a few-shot evaluation: remove fewShot. from the name",
            "metric",
        ),
    )

    @property
    def measures_start(self) -> bool:
        """Whether the starting model is evaluated."""
        return self.at_start or self.few_shot is not None

    @property
    def maximizes(self) -> bool:
        """Whether a higher metric is better."""
        if self.goal is not None:
            return self.goal == "Maximize"
        return re.match(_metric_pattern(HIGHER_IS_BETTER), self.metric) is not None
