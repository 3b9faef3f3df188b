"""Tell one view of an image from those of all others of the step (SimCLR, Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from torch.nn import functional

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.image_contrastive import ImageContrastiveConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.images import MOST_AT_ONCE, PIXELS, VALUES, Images, validate_image_shape
from finetune_trainer.objectives.losses.contrastive import Contest, Contrastive, Views
from finetune_trainer.protocol.outcome import ConfigurationError

FIRST, SECOND = VIEWS = range(2)


class ImageContrastive(Contrastive):
    """NT-Xent: cross entropy of an image's other view among the views of all images of the step but itself, in float32.

    Both views are altered by the row's own random numbers, one after the other. A batch has `pixel_values` [images, channels,
    height, width], the first views of all rows and then the second ones; `labels` [images] says which of these an image is,
    -100 for none. The embedding is the mean of the last hidden states over all places, scaled to length 1: every family has
    these, and a pooler only some. There is no projection head, which the paper throws away after training.
    """

    task: ClassVar[str] = "image-feature-extraction"
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {PIXELS: pyarrow.list_(pyarrow.uint8())}
    encode_batch_size: ClassVar[int] = MOST_AT_ONCE

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._options = options
        self._images = Images(processor)

    @property
    def identity(self) -> Any:
        return self._images.identity

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """Every record is kept: there is no image without content."""
        for pixels in self._images.pixels(records):
            yield EncodedRow([{PIXELS: pixels}], EncodeStatus.KEPT)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """All views of the batch as one, so that the model is called once; altered in an evaluation too."""
        pixels = [row[PIXELS] for row in rows]
        # One view after the other: images are altered in threads, and those of a row share its random numbers.
        views = [self._images.values(pixels, layout.dtype, self._options.augmentation, randoms) for _ in VIEWS]
        labels = torch.tensor(VIEWS if rows else [IGNORE_INDEX, IGNORE_INDEX]).repeat_interleave(len(views[0]))
        return {VALUES: torch.cat(views), "labels": labels}

    def count(self, batch: Batch) -> Sequence[int]:
        """One for each view."""
        return [int((batch["labels"] != IGNORE_INDEX).sum())]

    def start(self, model: Any, world: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that cannot take the images, or does not embed them."""
        outputs = validate_image_shape(model, self.collate([], [], Layout(dtype=model.dtype))[VALUES])
        if not hasattr(outputs, "last_hidden_state"):
            raise ConfigurationError(
                f"spec.model: this {model.config.model_type} gives no last_hidden_state for an image: use a model such as ViT "
                "or ResNet"
            )

    def _embed(self, model: Any, batch: Batch) -> Views:
        """The embeddings [n, width] of the first and the second views."""
        embeddings = functional.normalize(_mean(forward(model, batch).last_hidden_state), dim=-1)
        return tuple(embeddings[batch["labels"] == view] for view in VIEWS)

    def _contests(self, views: Views, rows: torch.Tensor) -> Sequence[Contest]:
        first, second = views
        return [self._contest(first, second, rows), self._contest(second, first, rows)]

    def _contest(self, own: torch.Tensor, others: torch.Tensor, rows: torch.Tensor) -> Contest:
        """Of views with those of the other kind, and with those of their own but themselves."""
        across, beside = own[rows] @ others.T, own[rows] @ own.T
        itself = rows[:, None] == torch.arange(len(own), device=rows.device)
        scores = torch.cat([across, beside.masked_fill(itself, -torch.inf)], dim=1)
        return Contest(scores / self._options.temperature, rows)


def _mean(states: torch.Tensor) -> torch.Tensor:
    """Over tokens [n, tokens, width] or a map [n, width, height, width], float32 [n, width]."""
    return states.mean(1, dtype=torch.float32) if states.dim() == 3 else states.mean((2, 3), dtype=torch.float32)
