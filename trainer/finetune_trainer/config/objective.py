"""What is learnt: each objective's options, and the columns that its rows must have."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section


class Options(Section):
    """Base of every objective's options. The first of the columns is what a row is about: it decides who is held out."""

    columns: ClassVar[tuple[str, ...]] = ("text",)
    optional_columns: ClassVar[tuple[str, ...]] = ()
    divisible: ClassVar[bool] = False
    """Whether a row of data is text like any other, which may be split and share a sequence; else it is one example."""
    framed: ClassVar[bool] = True
    """Whether a tokenizer that is trained for it puts a token before and one after each text, as BERT's does."""


class CausalLM(Options):
    """Predict each token from those before it (Radford et al. 2018)."""

    divisible: ClassVar[bool] = True
    framed: ClassVar[bool] = False


class MaskedLM(Options):
    """Predict tokens that were hidden from both sides of them (Devlin et al. 2019, arXiv:1810.04805)."""

    divisible: ClassVar[bool] = True

    probability: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are predicted.")
    mask_share: float = Field(0.8, ge=0, le=1, description="Share of those that the mask token replaces.")
    random_share: float = Field(0.1, ge=0, le=1, description="Share of those that a random token replaces; the rest stays.")
    whole_word: bool = Field(False, description="Hide words instead of tokens.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.maskShare + self.randomShare <= 1.0",
            "maskShare and randomShare are shares of the same tokens: lower one, so that together they are at most 1",
            "randomShare",
        ),
    )


class SequenceClassification(Options):
    """Label a text or a pair of texts: one of several labels, any of several labels, or a number."""

    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    optional_columns: ClassVar[tuple[str, ...]] = ("text_pair",)

    problem: Literal["SingleLabel", "MultiLabel", "Regression"] = Field(
        "SingleLabel", description="SingleLabel chooses one label, MultiLabel any number of them, Regression gives a number."
    )
    labels: list[str] = Field(
        default_factory=list, max_length=10_000, description="All labels in their order; found in the training data when empty."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.problem != 'Regression' || size(self.labels) == 0",
            "a number has no labels: remove labels, or set another problem",
            "labels",
        ),
    )


OPTIONS: dict[str, type[Options]] = {
    "CausalLM": CausalLM, "MaskedLM": MaskedLM, "SequenceClassification": SequenceClassification,
}  # fmt: skip
"""Each objective's options by the objective's name in the document."""


def _belongs(name: str, field: str) -> Rule:
    return Rule(
        f"self.type == '{name}' || !has(self.{field})",
        f"options for {name} have no effect with another objective: remove objective.{field}, or set objective.type: {name}",
        field,
    )


class Objective(Section):
    """The loss to minimise: its name, and below a field of its own what may be chosen about it."""

    type: Literal["CausalLM", "MaskedLM", "SequenceClassification"] = Field(
        "CausalLM",
        description="CausalLM predicts each token from those before it, MaskedLM hidden tokens from all others; "
        "SequenceClassification labels a text.",
    )
    masked_lm: MaskedLM | None = Field(None, alias="maskedLM")
    sequence_classification: SequenceClassification | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        _belongs("MaskedLM", "maskedLM"),
        _belongs("SequenceClassification", "sequenceClassification"),
    )

    @property
    def options(self) -> Options:
        """The chosen objective's options, the defaults if the document gives none."""
        return self.masked_lm or self.sequence_classification or OPTIONS[self.type]()

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that the objective reads, by their names in `data.train[].columns`."""
        return self.options.columns + self.options.optional_columns
