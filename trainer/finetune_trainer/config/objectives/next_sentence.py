"""Options for NextSentence."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.masked_lm import MaskedLM


class NextSentence(MaskedLM):
    """Pretrain a BERT: predict hidden tokens, and whether one piece of text follows another (Devlin et al. 2019)."""

    packable: ClassVar[bool] = False
    shares_encoder: ClassVar[bool] = False
    smoothable: ClassVar[bool] = False

    next_sentence_share: float = Field(
        0.5, ge=0, le=1, description="How often the second piece is what follows the first; else it is of another document."
    )
