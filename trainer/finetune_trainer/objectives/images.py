"""What objectives on images share: how an image becomes the numbers that a model takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from finetune_trainer.config import ImageAugmentationConfig
from finetune_trainer.data.augmentation.images import augment_image
from finetune_trainer.data.loading.dataset import Tokens
from finetune_trainer.data.records.images import decode_image
from finetune_trainer.data.records.row import Row
from finetune_trainer.protocol.outcome import ConfigurationError

PIXELS = "pixels"  # of an example: its bytes [height x width x channels]
VALUES = "pixel_values"  # of a batch
MODES = {1: "L", 3: "RGB"}  # Pillow's names for so many channels
MOST_AT_ONCE = 64  # images that are decoded and held in memory


class Images:
    """An image processor in two halves: what takes long is done once, when the data is prepared, and arithmetic every time.

    The first half decodes, resizes and crops: an image becomes bytes. The second is what rescaling and normalising come to, a
    factor and an addend for each channel. Both are found by looking at what the processor makes of images, as families have
    rules of their own.
    """

    def __init__(self, processor: Any) -> None:
        """Raises ConfigurationError for a processor whose work cannot be divided like this."""
        self._processor = processor
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "images")
        mean = getattr(processor, "image_mean", None)
        channels = len(mean) if isinstance(mean, list | tuple) else 3
        if list(processor.model_input_names) != [VALUES] or channels not in MODES:
            raise _unusable(processor, "asks for more than the pixels of one image")
        self.mode = MODES[channels]
        black, white = (self._processed(_plain(self.mode, 64, 64, value)) for value in (0, 255))
        middle = (slice(None), black.shape[1] // 2, black.shape[2] // 2)  # there is no padding
        self.addend = black[middle]
        self.factor = (white[middle] - self.addend) / 255
        self.shape: tuple[int, int, int] = black.shape
        if self._processed(_plain(self.mode, 64, 96, 0)).shape != self.shape:
            raise _unusable(processor, "gives images of different shapes different sizes")
        noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (*self.shape[1:], channels), np.uint8)
        steps = self._steps(self._processed(_picture(noise)))
        if not np.allclose(steps, np.rint(steps), atol=0.01):
            raise _unusable(processor, "does more than to resize, crop, rescale and normalise them")

    @property
    def identity(self) -> Any:
        """What changes when the bytes of an image may; JSON."""
        return json.loads(self._processor.to_json_string())

    def pixels(self, records: Sequence[Row]) -> list[Tokens]:
        """Each record's image as bytes [height x width x channels]; raises DataError for one that cannot be read."""
        return list(self._threads.map(self._pixels, records))

    def values(
        self,
        images: Sequence[Tokens],
        dtype: torch.dtype,
        wanted: ImageAugmentationConfig | None = None,
        randoms: Sequence[np.random.Generator] = (),
    ) -> torch.Tensor:
        """What the model takes of bytes [images, channels, height, width]; of no images at all, of a black one.

        With `wanted` each image is altered first, by its own random numbers.
        """
        channels, height, width = self.shape
        filled = np.empty((max(len(images), 1), *self.shape), np.float32)
        factor, addend = self.factor[:, None, None], self.addend[:, None, None]

        def fill(index: int) -> None:
            pixels = images[index].reshape(height, width, channels)
            if wanted is not None:
                picture = _picture(pixels)
                pixels = np.asarray(augment_image(picture, wanted, randoms[index])).reshape(pixels.shape)
            np.multiply(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)), factor, out=filled[index])
            filled[index] += addend

        if not images:
            filled[0] = addend
        list(self._threads.map(fill, range(len(images))))
        return torch.from_numpy(filled).to(dtype)

    def _pixels(self, record: Row) -> Tokens:
        steps = self._steps(self._processed(decode_image(record, self.mode)))
        return np.rint(steps).clip(0, 255).astype(np.uint8).ravel()

    def _steps(self, values: Tokens) -> Tokens:
        """Out of 255 [height, width, channels]."""
        steps: Tokens = (np.moveaxis(values, 0, -1) - self.addend) / self.factor
        return steps

    def _processed(self, image: Image.Image) -> Tokens:
        """Float32 [channels, height, width]."""
        values: Tokens = self._processor(images=[image], return_tensors="np")[VALUES][0].astype(np.float32)
        return values


def validate_image_shape(model: Any, images: torch.Tensor) -> Any:
    """What the model makes of such images; raises ConfigurationError if it cannot, call it where the model is."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return model(**{VALUES: images.to(model.device)})
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        channels, height, width = images.shape[1:]
        text = str(error).strip().split("\n", 1)[0]
        raise ConfigurationError(
            f"spec.model: this {model.config.model_type} cannot compute on images of {channels} x {height} x {width} "
            f"(channels, height, width), as its image processor makes them ({text}): correct spec.model.config, or use another "
            "model"
        ) from error
    finally:
        model.train(was_training)


def _picture(pixels: Tokens) -> Image.Image:
    """Of bytes [height, width, channels]."""
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def _plain(mode: str, height: int, width: int, value: int) -> Image.Image:
    return Image.new(mode, (width, height), value if mode == "L" else (value,) * len(mode))


def _unusable(processor: Any, why: str) -> ConfigurationError:
    return ConfigurationError(f"spec.model.source: its {type(processor).__name__} {why}: use a model with another processor")
