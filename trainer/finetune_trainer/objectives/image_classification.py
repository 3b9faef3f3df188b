"""Label an image (Dosovitskiy et al. 2021, arXiv:2010.11929; He et al. 2016, arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
from transformers import AutoModelForImageClassification

from finetune_trainer.config import ImageAugmentationConfig
from finetune_trainer.config.objectives.image_classification import ImageClassificationConfig
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import Collator, Objective, ObjectiveContext
from finetune_trainer.objectives.description import Block
from finetune_trainer.objectives.inputs.class_labels import TARGET, TARGET_TYPE, ClassLabels, LabeledEncoder
from finetune_trainer.objectives.inputs.images import (
    IMAGES_AT_ONCE,
    PIXEL_VALUES,
    PIXELS,
    ImagePreprocessor,
    run_on_images,
)
from finetune_trainer.objectives.losses.classification import ClassificationLoss
from finetune_trainer.objectives.metrics.classification import classification_metrics
from finetune_trainer.objectives.model_setups.classifier import ClassifierSetup


class ImageClassification(Objective):
    """One label, several labels or a number for each image.

    A batch has the input `pixel_values` [rows, channels, height, width] and the targets of `ClassificationLoss`.
    """

    encoder: LabeledImageEncoder

    @classmethod
    def assemble(cls, config: ImageClassificationConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for an image processor that does more than resize, crop, rescale and normalize."""
        labels = ClassLabels(config, context.section)
        images = ImagePreprocessor(processor)
        loss = ClassificationLoss(labels, context.label_smoothing)
        return cls(
            encoder=LabeledImageEncoder(processor, context, labels, images),
            collator=LabeledImageCollator(images, labels, config.augmentation),
            model_setup=ImageClassificationSetup(labels=labels, images=images),
            loss=loss,
            metrics=classification_metrics(loss, labels),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The image, augmented as in the first epoch, and its label."""
        return [self.encoder.images.describe("image", batch, 0), self.encoder.labels.describe(batch)]


class LabeledImageEncoder(LabeledEncoder):
    """Images with their labels."""

    fields = MappingProxyType({PIXELS: pyarrow.list_(pyarrow.uint8()), TARGET: TARGET_TYPE})
    batch_size = IMAGES_AT_ONCE

    def __init__(self, processor: Any, context: ObjectiveContext, labels: ClassLabels, images: ImagePreprocessor) -> None:
        super().__init__(processor, context, labels)
        self.images = images

    @property
    def fingerprint(self) -> Any:
        return [self.images.fingerprint, *self.labels.fingerprint]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Every row with a label is kept: no image is empty."""
        for row, pixels in zip(rows, self.images.decode(rows), strict=True):
            target = self.labels.encode(row)
            if target is None:
                yield EncodedRow([], EncodeStatus.UNLABELED)
            else:
                yield EncodedRow([{PIXELS: pixels, TARGET: target}], EncodeStatus.KEPT, self.labels.names_of(target))


class LabeledImageCollator(Collator):
    """Augments the images of training batches."""

    def __init__(self, images: ImagePreprocessor, labels: ClassLabels, augmentation: ImageAugmentationConfig) -> None:
        self.images = images
        self.labels = labels
        self.augmentation = augmentation

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        augmentation = self.augmentation if layout.training else None
        pixels = [sample[PIXELS] for sample in samples]
        values = self.images.pixel_values(pixels, layout.dtype, augmentation, generators)
        return Batch({PIXEL_VALUES: values}, {"labels": self.labels.collate(samples)})

    def count_terms(self, batch: Batch) -> Sequence[float]:
        """Known labels, or their weights."""
        return [self.labels.count_terms(batch.targets["labels"])]


@dataclass(kw_only=True)
class ImageClassificationSetup(ClassifierSetup):
    """An image model with a classification head."""

    images: ImagePreprocessor
    pipeline_task: str = "image-classification"
    auto_class: Any = AutoModelForImageClassification

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that cannot read the images."""
        run_on_images(model, self.images.pixel_values([], model.dtype))
