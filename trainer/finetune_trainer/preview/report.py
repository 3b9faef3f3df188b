"""The preview of a run's data: the data report, with what the model gets, and the length of the run."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from finetune_trainer.config.base import Section
from finetune_trainer.data.checks.base import CheckName
from finetune_trainer.data.checks.report import DataReport
from finetune_trainer.data.sources.stream import SPLITS
from finetune_trainer.objectives.description import Block

SCHEMA_VERSION = 1


class SampledSource(Section):
    """A source of which only the first rows were read."""

    field: str = Field(description="The source's place in the document, such as data.train[0].")
    rows: int = Field(description="Rows that were read.")
    total: int | None = Field(None, description="About how many rows the source has, if that can be estimated quickly.")


class SpecialToken(Section):
    """A special token in the sequences that were counted."""

    token: str
    id: int
    names: list[str] = Field(default_factory=list, description="What the tokenizer uses it for, such as eos and pad.")
    count: int
    trained: int = Field(description="How often it is predicted, so that the model learns to write it.")


class CollatedTokens(Section):
    """Tokens of sequences at equal distances, as they are collated for the first epoch; without padding."""

    sequences: int = Field(description="Sequences that were counted.")
    tokens: int
    trained: int = Field(description="Tokens that are predicted, so that the model learns from them.")
    special_tokens: list[SpecialToken] = Field(default_factory=list)


class RunLength(Section):
    """The steps of the run; estimates if only the first rows were read."""

    steps: int
    steps_per_epoch: float
    epochs: float
    sequences_per_step: int
    tokens_per_step: float = Field(description="On average, without padding; 0 for images.")
    tokens: int = Field(description="Tokens of all steps.")
    is_fixed: bool = Field(False, description="Whether training.maxSteps sets the steps, which are then no estimate.")
    is_estimate: bool
    is_lower_bound: bool = Field(False, description="Whether the number of rows is unknown, so that the run may be longer.")


class SourceShare(Section):
    """A source whose weight sets how often its sequences are seen."""

    field: str = Field(description="The source's place in the document, such as data.train[0].")
    sequences: int
    seen_per_epoch: int = Field(description="Sequences of an epoch that are drawn from this source.")


class ShownSequence(Section):
    """One of the sequences that the run trains on."""

    index: int = Field(description="Its number among the prepared sequences, counted from 0.")
    tokens: int = Field(description="Tokens without padding; 0 for images.")
    blocks: list[Block]


class DataPreview(DataReport):
    """What a run trains on."""

    schema_version: int = SCHEMA_VERSION
    objective: str
    method: str
    max_length: int
    packing: bool = Field(description="Whether several documents share a sequence.")
    batch_size: int
    policies: dict[CheckName, str] = Field(description="The policy of each data check.")
    sampled: list[SampledSource] = Field(
        default_factory=list, description="Sources of which only the first rows were read; all numbers are about these rows."
    )
    collated: CollatedTokens | None = Field(None, description="Absent for images.")
    run: RunLength
    shares: list[SourceShare] = Field(
        default_factory=list, description="With weights or replay, the share of each source; else each sequence is seen once."
    )
    warnings: list[str] = Field(default_factory=list)
    shown: list[ShownSequence] = Field(default_factory=list)

    def card(self) -> dict[str, Any]:
        """The part that a model card shows: the data report without its histograms, as in `document`."""
        without_histograms: Any = {split: {"histogram"} for split in SPLITS}
        return self.model_dump(
            mode="json", by_alias=True, exclude_none=True, include=set(DataReport.model_fields), exclude=without_histograms
        )

    @property
    def coverage(self) -> str:
        """The rows that the numbers are about, in words."""
        if not self.sampled:
            return "all rows"
        counts = {f"{source.rows:,}" for source in self.sampled}
        if len(counts) == 1 and len(self.sources) == len(self.sampled):
            return f"the first {counts.pop()} rows" + (" of each source" if len(self.sources) > 1 else "")
        parts = [f"the first {source.rows:,} rows of {source.field}" for source in self.sampled]
        return ", ".join(parts) + (" and all other rows" if len(self.sources) > len(self.sampled) else "")
