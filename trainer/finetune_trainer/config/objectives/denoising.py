"""Options for Denoising."""

from __future__ import annotations

import bisect
from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section
from finetune_trainer.config.objectives.base import ObjectiveConfig


class SpanCorruptionConfig(Section):
    """Spans of tokens give way to one sentinel token each, and are what is written (Raffel et al. 2020, arXiv:1910.10683)."""

    noise_density: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are hidden.")
    mean_span_length: float = Field(3.0, ge=1, le=1000, description="Tokens of a span, in the mean.")

    def counts(self, tokens: int) -> tuple[int, int]:
        """How many of a text's tokens are hidden, and in how many spans: at least one each, and one token stays."""
        hidden = min(max(round(tokens * self.noise_density), 1), tokens - 1)
        return hidden, min(max(round(hidden / self.mean_span_length), 1), hidden, tokens - hidden)

    def tokens_within(self, room: int) -> int:
        """Tokens of the longest text of which neither what is read nor what is written has more than `room`."""

        def longest(tokens: int) -> int:
            hidden, spans = self.counts(tokens)
            return spans + max(hidden, tokens - hidden)

        return bisect.bisect_right(range(2 * room + 2), room, key=longest) - 1


class TextInfillingConfig(Section):
    """Spans of tokens give way to one mask token each, and the whole text is written (Lewis et al. 2019, arXiv:1910.13461)."""

    mask_ratio: float = Field(0.3, gt=0, lt=1, description="Share of the tokens that are hidden.")
    mean_span_length: float = Field(
        3.0, ge=1, le=1000, description="Mean of the Poisson distribution of a span's tokens; a mask may stand for none."
    )
    shuffle_sentences: bool = Field(False, description="Put a text's sentences in random order as well.")


class DenoisingConfig(ObjectiveConfig):
    """Restore texts of which parts were hidden: how T5 and BART are pre-trained (arXiv:1910.10683, arXiv:1910.13461)."""

    divisible: ClassVar[bool] = True
    smoothable: ClassVar[bool] = True
    framed: ClassVar[bool] = False

    noise: Literal["SpanCorruption", "TextInfilling"] = Field(
        "SpanCorruption",
        description="SpanCorruption: a sentinel of its own for each hidden span, and the spans are written, as T5 learns. "
        "TextInfilling: the same mask for each, and the whole text is written, as BART learns.",
    )
    span_corruption: SpanCorruptionConfig | None = None
    text_infilling: TextInfillingConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        Rule(
            f"self.noise == '{noise}' || !has(self.{field})",
            f"options for {noise} have no effect with other noise: remove {field}, or set noise: {noise}",
            field,
        )
        for noise, field in (("SpanCorruption", "spanCorruption"), ("TextInfilling", "textInfilling"))
    )

    @property
    def spans(self) -> SpanCorruptionConfig:
        """What is chosen about SpanCorruption, the defaults if the document says nothing."""
        return self.span_corruption or SpanCorruptionConfig()

    @property
    def infilling(self) -> TextInfillingConfig:
        """What is chosen about TextInfilling, the defaults if the document says nothing."""
        return self.text_infilling or TextInfillingConfig()

    def sentinels(self, max_length: int) -> int:
        return self.spans.counts(self.spans.tokens_within(max_length))[1] if self.noise == "SpanCorruption" else 0
