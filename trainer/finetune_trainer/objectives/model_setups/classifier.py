"""Models with a classification head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_trainer.objectives.base import ModelSetup
from finetune_trainer.objectives.inputs.label_names import SHOWN_LABELS, LabelSet, SourceHead, in_source_order


@dataclass(kw_only=True)
class ClassifierSetup(ModelSetup):
    """A model whose head has an output for each label."""

    labels: LabelSet
    has_new_head: bool = True
    source: Any = None
    """The transformers configuration of the model that training starts from; None for a model from scratch."""

    def start_from(self, source: Any) -> None:
        """Let a finished head decide the order of the labels."""
        self.source = source
        head = self.labels.source_head = SourceHead.from_config(source, self.auto_class)
        given = list(self.labels.given)
        if head is not None and in_source_order(given, head) != given:
            self.notes.append(
                f"spec.{self.labels.field}: the source's head has these labels in another order, which is kept: "
                f"{', '.join(head.names[:SHOWN_LABELS])}"
            )

    @property
    def continues_task(self) -> bool:
        """Whether the source has a classification head of this kind."""
        return self.labels.source_head is not None

    def head_mismatch(self) -> str | None:
        """Why the outputs of the source's head do not stand for the labels; None where they do."""
        if self.source is None:
            return None
        if self.labels.source_head is None:
            return f"its head is one of another task ({', '.join(self.source.architectures)})"
        return self.labels.source_head.mismatch(self.labels)

    def config_overrides(self) -> dict[str, Any]:
        """The labels."""
        return self.labels.config_overrides()
