"""Images become the numbers that a model reads."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from finetune_trainer.config import ImageAugmentationConfig
from finetune_trainer.data.augmentation.images import augment_image
from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.data.loading.dataset import Tokens
from finetune_trainer.data.records.images import decode_image
from finetune_trainer.data.records.row import Row
from finetune_trainer.huggingface.pretrained import training_mode
from finetune_trainer.objectives.description import Block, Picture
from finetune_trainer.protocol.outcome import ConfigurationError, first_line

PIXELS = "pixels"  # of an example: its bytes [height x width x channels]
PIXEL_VALUES = "pixel_values"  # of a batch
MODES = {1: "L", 3: "RGB"}  # Pillow's names for so many channels
MAX_SHOWN_PIXELS = 256  # width and height of an image in a report
IMAGES_AT_ONCE = 64  # images that are decoded and held in memory


class ImagePreprocessor:
    """An image processor in two halves: the slow one runs once, when the data is prepared, and the fast one for each batch.

    The first half decodes, resizes and crops: an image becomes bytes. The second is the arithmetic of rescaling and
    normalization: a factor and an offset for each channel. Both are derived from the processor's outputs for test images, as
    families have rules of their own.
    """

    def __init__(self, processor: Any) -> None:
        """Raises ConfigurationError for a processor that cannot be divided like this."""
        self._processor = processor
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "images")
        mean = getattr(processor, "image_mean", None)
        channels = len(mean) if isinstance(mean, list | tuple) else 3
        if list(processor.model_input_names) != [PIXEL_VALUES] or channels not in MODES:
            raise _unsupported_processor(processor, "asks for more than the pixels of one image")
        self.mode = MODES[channels]
        black = self._process(_plain_image(self.mode, 64, 64, 0))
        white = self._process(_plain_image(self.mode, 64, 64, 255))
        middle = (slice(None), black.shape[1] // 2, black.shape[2] // 2)  # there is no padding
        self.offset = black[middle]
        self.factor = (white[middle] - self.offset) / 255
        self.shape: tuple[int, int, int] = black.shape
        if self._process(_plain_image(self.mode, 64, 96, 0)).shape != self.shape:
            raise _unsupported_processor(processor, "gives images of different shapes different sizes")
        noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (*self.shape[1:], channels), np.uint8)
        levels = self._to_levels(self._process(_to_image(noise)))
        if not np.allclose(levels, np.rint(levels), atol=0.01):
            raise _unsupported_processor(processor, "does more than to resize, crop, rescale and normalise them")

    @property
    def fingerprint(self) -> Any:
        """Changes when the bytes of an image may change; JSON."""
        return json.loads(self._processor.to_json_string())

    def decode(self, rows: Sequence[Row]) -> list[Tokens]:
        """Each row's image as bytes [height x width x channels]; raises DataError for one that cannot be read."""
        return list(self._threads.map(self._decode, rows))

    def pixel_values(
        self,
        images: Sequence[Tokens],
        dtype: torch.dtype,
        augmentation: ImageAugmentationConfig | None = None,
        generators: Sequence[np.random.Generator] = (),
    ) -> torch.Tensor:
        """The model's input for decoded images, [images, channels, height, width]; without images, one black image.

        With `augmentation` each image is augmented first, by its own random generator.
        """
        channels, height, width = self.shape
        values = np.empty((max(len(images), 1), *self.shape), np.float32)
        factor, offset = self.factor[:, None, None], self.offset[:, None, None]

        def fill(index: int) -> None:
            pixels = images[index].reshape(height, width, channels)
            if augmentation is not None:
                image = augment_image(_to_image(pixels), augmentation, generators[index])
                pixels = np.asarray(image).reshape(pixels.shape)
            np.multiply(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)), factor, out=values[index])
            values[index] += offset

        if not images:
            values[0] = offset
        list(self._threads.map(fill, range(len(images))))
        return torch.from_numpy(values).to(dtype)

    def describe(self, name: str, batch: Batch, index: int) -> Block:
        """An image of a batch as the model gets it, with its normalization undone."""
        values: Tokens = batch.inputs[PIXEL_VALUES][index].float().numpy()
        png = io.BytesIO()
        image = _to_image(self._to_bytes(values))
        image.thumbnail((MAX_SHOWN_PIXELS, MAX_SHOWN_PIXELS))
        image.save(png, "PNG")
        _, height, width = self.shape
        return Block(name=name, picture=Picture(width=width, height=height, png=base64.b64encode(png.getvalue()).decode()))

    def _decode(self, row: Row) -> Tokens:
        return self._to_bytes(self._process(decode_image(row, self.mode))).ravel()

    def _to_bytes(self, values: Tokens) -> Tokens:
        """Bytes [height, width, channels] from the processor's output."""
        return np.rint(self._to_levels(values)).clip(0, 255).astype(np.uint8)

    def _to_levels(self, values: Tokens) -> Tokens:
        """Brightness from 0 to 255, [height, width, channels], from the processor's output."""
        levels: Tokens = (np.moveaxis(values, 0, -1) - self.offset) / self.factor
        return levels

    def _process(self, image: Image.Image) -> Tokens:
        """The processor's output, float32 [channels, height, width]."""
        values: Tokens = self._processor(images=[image], return_tensors="np")[PIXEL_VALUES][0].astype(np.float32)
        return values


def run_on_images(model: Any, images: torch.Tensor) -> Any:
    """The model's outputs for images of this shape, on its own device; raises ConfigurationError if it cannot read them."""
    try:
        with training_mode(model, False), torch.no_grad():
            return model(**{PIXEL_VALUES: images.to(model.device)})
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        channels, height, width = images.shape[1:]
        reason = first_line(error)
        raise ConfigurationError(
            f"spec.model: this {model.config.model_type} cannot compute on images of {channels} x {height} x {width} "
            f"(channels, height, width), as its image processor makes them ({reason}): correct spec.model.config, or use "
            "another model"
        ) from error


def _to_image(pixels: Tokens) -> Image.Image:
    """From bytes [height, width, channels]."""
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def _plain_image(mode: str, height: int, width: int, value: int) -> Image.Image:
    return Image.new(mode, (width, height), value if mode == "L" else (value,) * len(mode))


def _unsupported_processor(processor: Any, reason: str) -> ConfigurationError:
    return ConfigurationError(f"spec.model.source: its {type(processor).__name__} {reason}: use a model with another processor")
