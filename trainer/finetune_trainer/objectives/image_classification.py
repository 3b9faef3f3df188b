"""Label an image (Dosovitskiy et al. 2021, arXiv:2010.11929; He et al. 2016, arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
from transformers import AutoModelForImageClassification

from finetune_trainer.config import ImageObjectiveConfig, TrainSpec
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.classification import TARGET, TARGET_TYPE, Classification
from finetune_trainer.objectives.images import MOST_AT_ONCE, PIXELS, VALUES, Images, validate_image_shape


class ImageClassification(Classification):
    """A batch has `pixel_values` [rows, channels, height, width]."""

    task: ClassVar[str] = "image-classification"
    auto_class: ClassVar[Any] = AutoModelForImageClassification
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {PIXELS: pyarrow.list_(pyarrow.uint8()), TARGET: TARGET_TYPE}
    encode_batch_size: ClassVar[int] = MOST_AT_ONCE

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, ImageObjectiveConfig)
        self._augmentation = options.augmentation
        self._images = Images(processor)

    @property
    def identity(self) -> Any:
        return [self._images.identity, *self.target_identity]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """Every record is kept: there is no image without content."""
        for record, pixels in zip(records, self._images.pixels(records), strict=True):
            yield EncodedRow([{PIXELS: pixels, TARGET: self.target(record)}], EncodeStatus.KEPT)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Altered as the document says, if they are to learn from."""
        altered = self._augmentation if layout.training else None
        images = self._images.values([row[PIXELS] for row in rows], layout.dtype, altered, randoms)
        return {VALUES: images, "labels": self.targets(rows)}

    def start(self, model: Any, world: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that cannot take the images."""
        validate_image_shape(model, self.collate([], [], Layout(dtype=model.dtype))[VALUES])
