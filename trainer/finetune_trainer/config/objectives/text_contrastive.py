"""The config of TextContrastive."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics, always


class TextContrastiveConfig(ObjectiveConfig):
    """Match a text with its pair among those of all rows of the step (Gao et al. 2021, arXiv:2104.08821).

    training.batchSize sets the number of rows in a step. An evaluation compares groups of as many rows; recall@1, recall@5 and
    mrr measure the rank of a text's pair among those of its group.
    """

    columns: ClassVar[tuple[str, ...]] = ("text",)
    optional_columns: ClassVar[tuple[str, ...]] = ("text_pair", "negative")
    compares_rows: ClassVar[bool] = True
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always("loss", "recall@1", "recall@5", "mrr")

    unsupervised: bool = Field(
        False, description="Each text is its own pair, embedded twice with different dropout; training data has no pairs then."
    )
    pooling: Literal["Mean", "CLS", "LastToken"] = Field(
        "Mean", description="Embedding of a text: the mean of its tokens' states, or the state of the first or last token."
    )
    normalize: bool = Field(True, description="Scale embeddings to length 1, so that their product is the cosine.")
    temperature: float = Field(0.05, gt=0, le=100, description="Divisor of the product of two embeddings.")
    symmetric: bool = Field(True, description="Match each pair with its text too.")
