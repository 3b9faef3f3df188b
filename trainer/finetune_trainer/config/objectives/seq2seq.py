"""The config of Seq2Seq."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.languages import LanguagesConfig
from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics


class Seq2SeqConfig(ObjectiveConfig):
    """Write one text after reading another, such as its translation or summary (Sutskever et al. 2014, arXiv:1409.3215)."""

    columns: ClassVar[tuple[str, ...]] = ("text", "target")
    supports_label_smoothing: ClassVar[bool] = True
    supports_few_shot: ClassVar[bool] = True
    adds_special_tokens: ClassVar[bool] = False
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = (
        ReportedMetrics(("loss", "perplexity", "tokenAccuracy")),
        ReportedMetrics(("bleu",), "metrics: [BLEU]", "'BLEU' in {section}.metrics"),
        ReportedMetrics(("rouge1", "rouge2", "rougeL"), "metrics: [ROUGE]", "'ROUGE' in {section}.metrics"),
    )

    prefix: str = Field("", max_length=4096, description='Text before each input, such as T5\'s "summarize: ".')
    languages: LanguagesConfig | None = None
    max_target_length: int = Field(
        128, ge=4, le=1_048_576, description="Maximum tokens of a target, including its end-of-text token."
    )
    metrics: list[Literal["BLEU", "ROUGE"]] = Field(
        ["BLEU", "ROUGE"],
        max_length=2,
        description="Metrics of generated texts in the evaluation: BLEU as sacrebleu computes it; ROUGE-1, -2 and -L as "
        "rouge_score computes them. Texts are compared with whole targets, divided into words by their script. Generation "
        "takes far longer than the loss: an empty list turns it off.",
    )
    beams: int = Field(1, ge=1, le=64, description="Beams of the evaluation's beam search; 1 is greedy search.")
