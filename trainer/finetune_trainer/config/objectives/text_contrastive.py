"""Options for TextContrastive."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig


class TextContrastiveConfig(ObjectiveConfig):
    """Tell the text that goes with another from those of all other rows of the step (Gao et al. 2021, arXiv:2104.08821).

    How many rows those are is decided by training.batchSize alone. An evaluation goes in groups of as many rows, and recall@1,
    recall@5 and mrr say how soon a text finds its second one among those of its group.
    """

    columns: ClassVar[tuple[str, ...]] = ("text",)
    optional_columns: ClassVar[tuple[str, ...]] = ("text_pair", "negative")
    compares: ClassVar[bool] = True

    unsupervised: bool = Field(
        False, description="Each text goes with itself, seen twice with different dropout; training data has no pairs then."
    )
    pooling: Literal["Mean", "CLS", "LastToken"] = Field(
        "Mean", description="What becomes of the states of a text's tokens: their mean, or that of the first or last token."
    )
    normalize: bool = Field(True, description="Embeddings have length 1, so that their product is the cosine.")
    temperature: float = Field(0.05, gt=0, le=100, description="What the product of two embeddings is divided by.")
    symmetric: bool = Field(True, description="Each second text is told the first that goes with it, too.")
