"""Match two views of an image among those of all images of the step (SimCLR, Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
import torch
from torch.nn import functional
from transformers import AutoModel

from finetune_trainer.config import ImageAugmentationConfig
from finetune_trainer.config.objectives.image_contrastive import ImageContrastiveConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import Collator, Encoder, ModelSetup, Objective, ObjectiveContext
from finetune_trainer.objectives.description import Block
from finetune_trainer.objectives.inputs.images import (
    IMAGES_AT_ONCE,
    PIXEL_VALUES,
    PIXELS,
    ImagePreprocessor,
    run_on_images,
)
from finetune_trainer.objectives.losses.contrastive import Comparison, ContrastiveLoss, Views
from finetune_trainer.objectives.losses.from_outputs import count_labels
from finetune_trainer.objectives.metrics.retrieval import RetrievalMetrics
from finetune_trainer.protocol.outcome import ConfigurationError

FIRST, SECOND = VIEWS = range(2)


class ImageContrastive(Objective):
    """NT-Xent: cross entropy of an image's other view among the views of all images of the step, except the view itself.

    A batch has the input `pixel_values` [images, channels, height, width], the first views of all rows and then the second
    ones, and the target `views` [images]: which view each image is, -100 for none.
    """

    encoder: ImageEncoder

    @classmethod
    def assemble(cls, config: ImageContrastiveConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for an image processor that does more than resize, crop, rescale and normalize."""
        images = ImagePreprocessor(processor)
        return cls(
            encoder=ImageEncoder(processor, context, images),
            collator=ViewsCollator(images, config.augmentation),
            model_setup=ImageContrastiveSetup(images=images),
            loss=NTXentLoss(config.temperature),
            metrics=RetrievalMetrics(),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """Both views of the image."""
        return [self.encoder.images.describe(f"view {view + 1}", batch, view) for view in VIEWS]


class ImageEncoder(Encoder):
    """Images without labels."""

    fields = MappingProxyType({PIXELS: pyarrow.list_(pyarrow.uint8())})
    batch_size = IMAGES_AT_ONCE

    def __init__(self, processor: Any, context: ObjectiveContext, images: ImagePreprocessor) -> None:
        super().__init__(processor, context)
        self.images = images

    @property
    def fingerprint(self) -> Any:
        return self.images.fingerprint

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Every row is kept: no image is empty."""
        for pixels in self.images.decode(rows):
            yield EncodedRow([{PIXELS: pixels}], EncodeStatus.KEPT)


class ViewsCollator(Collator):
    """Two augmented views of each image, in an evaluation too; the row's random generator draws one after the other."""

    def __init__(self, images: ImagePreprocessor, augmentation: ImageAugmentationConfig) -> None:
        self.images = images
        self.augmentation = augmentation

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """All views as one batch, so that the model is called once."""
        pixels = [sample[PIXELS] for sample in samples]
        # One view after the other: images are augmented in threads, and both views of a row share its random generator.
        views = [self.images.pixel_values(pixels, layout.dtype, self.augmentation, generators) for _ in VIEWS]
        view_numbers = torch.tensor(VIEWS if samples else [IGNORE_INDEX, IGNORE_INDEX]).repeat_interleave(len(views[0]))
        return Batch({PIXEL_VALUES: torch.cat(views)}, {"views": view_numbers})

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """One for each view."""
        return [count_labels(batch.targets["views"])]


@dataclass(kw_only=True)
class ImageContrastiveSetup(ModelSetup):
    """A model that embeds images. The paper's projection head is left out: it is discarded after training."""

    images: ImagePreprocessor
    pipeline_task: str = "image-feature-extraction"
    auto_class: Any = AutoModel
    has_new_head: bool = True  # some families have a pooler, which is not used here and often missing

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that cannot read the images, or has no embeddings of them."""
        # Two images, as a batch without rows has.
        black = self.images.pixel_values([], model.dtype)
        outputs = run_on_images(model, torch.cat([black, black]))
        if not hasattr(outputs, "last_hidden_state"):
            raise ConfigurationError(
                f"spec.model: this {model.config.model_type} gives no last_hidden_state for an image: use a model such as ViT "
                "or ResNet"
            )


class NTXentLoss(ContrastiveLoss):
    """Cross entropy, in float32, of the cosine similarities divided by the temperature.

    An embedding is the mean of the last hidden states over all positions, scaled to length 1: every family has these, and only
    some have a pooler.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def embed(self, model: Any, batch: Batch) -> Views:
        """The embeddings [n, width] of the first and of the second views."""
        embeddings = functional.normalize(_mean_over_positions(model(**batch.inputs).last_hidden_state), dim=-1)
        return tuple(embeddings[batch.targets["views"] == view] for view in VIEWS)

    def compare(self, views: Views, rows: torch.Tensor) -> Sequence[Comparison]:
        """The first views with all second ones and the other first ones, and vice versa."""
        first, second = views
        return [self._compare_view(first, second, rows), self._compare_view(second, first, rows)]

    def _compare_view(self, own: torch.Tensor, other: torch.Tensor, rows: torch.Tensor) -> Comparison:
        across, within = own[rows] @ other.T, own[rows] @ own.T
        is_itself = rows[:, None] == torch.arange(len(own), device=rows.device)
        scores = torch.cat([across, within.masked_fill(is_itself, -torch.inf)], dim=1)
        return Comparison(scores / self.temperature, rows)


def _mean_over_positions(states: torch.Tensor) -> torch.Tensor:
    """The mean over tokens [n, tokens, width] or over a map [n, width, height, width], float32 [n, width]."""
    return states.mean(1, dtype=torch.float32) if states.dim() == 3 else states.mean((2, 3), dtype=torch.float32)
