"""The config of NextSentence."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.base import ReportedMetrics, always
from finetune_trainer.config.objectives.masked_lm import MaskedLMConfig


class NextSentenceConfig(MaskedLMConfig):
    """Pretrain a BERT: predict hidden tokens, and whether one piece of text follows another (Devlin et al. 2019).

    A row is a document of at least two sentences or lines. A piece that does not follow is drawn from the documents around it
    in the data, up to a thousand of them or two million characters; a document without others has only pieces that follow.
    """

    packable: ClassVar[bool] = False
    shares_encoder: ClassVar[bool] = False
    supports_label_smoothing: ClassVar[bool] = False
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always(
        "loss", "masked.loss", "masked.accuracy", "nextSentence.loss", "nextSentence.accuracy"
    )

    next_sentence_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of pairs whose second piece follows the first. The others mix two documents.",
    )
