"""The loss of a classification or regression."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.objectives.inputs.class_labels import ClassLabels
from finetune_trainer.objectives.losses.from_outputs import OutputLoss


class ClassificationLoss(OutputLoss):
    """Cross entropy of the label, binary cross entropy of each label, or the squared error of the value; in float32.

    A batch has the targets `labels` [rows, 1 or labels] float32, NaN where there is no term.
    """

    def __init__(self, labels: ClassLabels, label_smoothing: float) -> None:
        super().__init__(label_smoothing)
        self.labels = labels

    def from_outputs(self, outputs: Any, batch: Batch, smoothing: float) -> torch.Tensor:
        """The summed loss, [1]."""
        logits, labels = outputs.logits.float(), batch.targets["labels"]
        is_known, values = ~labels.isnan(), labels.nan_to_num()
        match self.labels.problem:
            case "SingleLabel":
                weights = self.labels.weights
                if weights is not None:
                    weights = weights.to(logits.device)
                target = values[:, 0].long()
                terms = functional.cross_entropy(logits, target, weights, reduction="none", label_smoothing=smoothing)[:, None]
            case "MultiLabel":
                terms = functional.binary_cross_entropy_with_logits(logits, values, reduction="none")
            case "Regression":
                terms = (logits - values).square()
        return terms.where(is_known, 0.0).sum()[None]
