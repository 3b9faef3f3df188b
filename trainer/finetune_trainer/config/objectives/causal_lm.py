"""The config of CausalLM, which has no options."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics, always


class CausalLMConfig(ObjectiveConfig):
    """Predict each token from those before it (Radford et al. 2018)."""

    splittable: ClassVar[bool] = True
    packable: ClassVar[bool] = True
    supports_label_smoothing: ClassVar[bool] = True
    supports_prompt_tuning: ClassVar[bool] = True
    adds_special_tokens: ClassVar[bool] = False
    generates_text: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always("loss", "perplexity")
