"""Options for NextSentence."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.objectives.masked_lm import MaskedLMConfig


class NextSentenceConfig(MaskedLMConfig):
    """Pretrain a BERT: predict hidden tokens, and whether one piece of text follows another (Devlin et al. 2019).

    A row of data is a document of at least two sentences or lines. What does not follow is drawn from the documents around it
    in the data, up to a thousand of them or two million characters; a document without others gives only pieces that follow.
    """

    packable: ClassVar[bool] = False
    shares_encoder: ClassVar[bool] = False
    smoothable: ClassVar[bool] = False

    next_sentence_share: float = Field(
        0.5, ge=0, le=1, description="How often the second piece is what follows the first; else it is of another document."
    )
