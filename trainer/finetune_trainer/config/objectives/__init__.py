"""What is learnt: each objective's options in a file of its own, and the document's section that chooses one."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section
from finetune_trainer.config.objectives.base import Options
from finetune_trainer.config.objectives.causal_lm import CausalLM
from finetune_trainer.config.objectives.masked_lm import MaskedLM
from finetune_trainer.config.objectives.sequence_classification import SequenceClassification

OPTIONS: dict[str, type[Options]] = {
    "CausalLM": CausalLM,
    "MaskedLM": MaskedLM,
    "SequenceClassification": SequenceClassification,
}
"""Each objective's options by the objective's name in the document."""


def _field(name: str) -> str:
    """Where the document has an objective's options: MaskedLM's below maskedLM."""
    return name[0].lower() + name[1:]


def _belongs(name: str) -> Rule:
    field = _field(name)
    return Rule(
        f"self.type == '{name}' || !has(self.{field})",
        f"options for {name} have no effect with another objective: remove objective.{field}, or set objective.type: {name}",
        field,
    )


def _sentence(name: str) -> str:
    first = (OPTIONS[name].__doc__ or "").partition("\n")[0]
    return f"{name}: {first[0].lower()}{first[1:]}"


class Objective(Section):
    """The loss to minimise: its name, and below a field of its own what may be chosen about it."""

    type: Literal[
        "CausalLM",
        "MaskedLM",
        "SequenceClassification",
    ] = Field("CausalLM", description=" ".join(map(_sentence, OPTIONS)))
    masked_lm: MaskedLM | None = Field(None, alias=_field("MaskedLM"))
    sequence_classification: SequenceClassification | None = None

    rules: ClassVar[tuple[Rule, ...]] = tuple(_belongs(name) for name, options in OPTIONS.items() if options.model_fields)

    @property
    def options(self) -> Options:
        """The chosen objective's options, the defaults if the document gives none."""
        given = {info.alias: getattr(self, name) for name, info in type(self).model_fields.items()}
        return given.get(_field(self.type)) or OPTIONS[self.type]()

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that the objective reads, by their names in `data.train[].columns`."""
        return self.options.columns + self.options.optional_columns
