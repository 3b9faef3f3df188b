"""The config of Denoising."""

from __future__ import annotations

import bisect
from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section
from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics, always


class SpanCorruptionConfig(Section):
    """Replaces spans of tokens by one sentinel token each; the target is the spans (Raffel et al. 2020, arXiv:1910.10683)."""

    noise_density: float = Field(0.15, gt=0, lt=1, description="Share of the tokens to hide.")
    mean_span_length: float = Field(3.0, ge=1, le=1000, description="Mean number of tokens of a span.")

    def counts(self, tokens: int) -> tuple[int, int]:
        """The numbers of hidden tokens and of spans in a text: at least one of each, and at least one token stays visible."""
        hidden = min(max(round(tokens * self.noise_density), 1), tokens - 1)
        return hidden, min(max(round(hidden / self.mean_span_length), 1), hidden, tokens - hidden)

    def tokens_within(self, room: int) -> int:
        """Tokens of the longest text whose input and target both have at most `room` tokens."""

        def longest(tokens: int) -> int:
            hidden, spans = self.counts(tokens)
            return spans + max(hidden, tokens - hidden)

        return bisect.bisect_right(range(2 * room + 2), room, key=longest) - 1


class TextInfillingConfig(Section):
    """Replaces spans of tokens by one mask token each; the target is the text (Lewis et al. 2019, arXiv:1910.13461)."""

    mask_ratio: float = Field(0.3, gt=0, lt=1, description="Share of the tokens to hide.")
    mean_span_length: float = Field(
        3.0, ge=1, le=1000, description="Mean of the Poisson distribution of span lengths; a span may be empty."
    )
    shuffle_sentences: bool = Field(False, description="Shuffle the sentences of a text as well.")


class DenoisingConfig(ObjectiveConfig):
    """Restore texts with hidden parts, as in the pretraining of T5 and BART (arXiv:1910.10683, arXiv:1910.13461)."""

    splittable: ClassVar[bool] = True
    supports_label_smoothing: ClassVar[bool] = True
    adds_special_tokens: ClassVar[bool] = False
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always("loss", "perplexity", "tokenAccuracy")

    noise: Literal["SpanCorruption", "TextInfilling"] = Field(
        "SpanCorruption",
        description="SpanCorruption replaces each hidden span by a sentinel of its own, and the target is the spans, as in T5. "
        "TextInfilling replaces each by the same mask, and the target is the whole text, as in BART.",
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
        """The options of SpanCorruption, with the defaults if the document has none."""
        return self.span_corruption or SpanCorruptionConfig()

    @property
    def infilling(self) -> TextInfillingConfig:
        """The options of TextInfilling, with the defaults if the document has none."""
        return self.text_infilling or TextInfillingConfig()

    def sentinel_count(self, max_length: int) -> int:
        if self.noise != "SpanCorruption":
            return 0
        _, spans = self.spans.counts(self.spans.tokens_within(max_length))
        return spans
