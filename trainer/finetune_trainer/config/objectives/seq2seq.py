"""Options for Seq2Seq."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.languages import LanguagesConfig
from finetune_trainer.config.objectives.base import ObjectiveConfig


class Seq2SeqConfig(ObjectiveConfig):
    """Write one text after reading another, such as its translation or summary (Sutskever et al. 2014, arXiv:1409.3215)."""

    columns: ClassVar[tuple[str, ...]] = ("text", "target")
    smoothable: ClassVar[bool] = True
    in_context: ClassVar[bool] = True
    framed: ClassVar[bool] = False

    prefix: str = Field("", max_length=4096, description='Put before each text, such as T5\'s "summarize: ".')
    languages: LanguagesConfig | None = None
    max_target_length: int = Field(128, ge=4, le=1_048_576, description="Tokens of a target, its end-of-text token included.")
    metrics: list[Literal["BLEU", "ROUGE"]] = Field(
        ["BLEU", "ROUGE"],
        max_length=2,
        description="What the evaluation compares written texts with targets by: BLEU as sacrebleu has it; ROUGE-1, -2 and -L "
        "as rouge_score has them, which see Latin letters and digits only. Writing takes far longer than the loss: with an "
        "empty list nothing is written.",
    )
    beams: int = Field(
        1, ge=1, le=64, description="Beams that the evaluation writes with; 1 takes the likeliest token each time."
    )
