"""Altered images: torchvision's own operations, drawn from a row's numbers alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from finetune_trainer.config import ImageAugmentationConfig
from finetune_trainer.data.augmentation.images import LEVELS, OPERATIONS, RAND, TRIVIAL, augment_image
from finetune_trainer.data.loading.dataloader import sample_generator

IMAGE = torch.from_numpy(np.random.Generator(np.random.Philox(0)).integers(0, 256, (3, 48, 40), np.uint8))
IMAGE[:, 12:30, 8:20] //= 4
KINDS: dict[str, dict[str, Any]] = {
    "crop": {"randomCrop": {}},
    "flip": {"horizontalFlip": 0.5},
    "colors": {"colorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
    "grayscale": {"grayscale": 0.5},
    "blur": {"blur": 1},
    "RandAugment": {"randAugment": {"operations": 3, "magnitude": 15}},
    "TrivialAugment": {"trivialAugment": True},
}
KINDS["all"] = {name: value for kind in KINDS.values() for name, value in kind.items() if name != "trivialAugment"}


def altered(wanted: dict[str, Any], seed: int = 1, epoch: int = 0, row: int = 0, image: torch.Tensor = IMAGE) -> torch.Tensor:
    picture = v2.functional.to_pil_image(image)
    changed = augment_image(picture, ImageAugmentationConfig.model_validate(wanted), sample_generator(seed, epoch, row))
    return v2.functional.pil_to_tensor(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_becomes_of_an_image_follows_from_seed_pass_and_row(kind: str) -> None:
    first = [altered(KINDS[kind], row=row) for row in range(12)]
    torch.manual_seed(7)
    assert all(torch.equal(altered(KINDS[kind], row=row), image) for row, image in enumerate(first))
    assert all(image.shape == IMAGE.shape and image.dtype == torch.uint8 for image in first)
    for change in ({"seed": 2}, {"epoch": 1}):
        again = [altered(KINDS[kind], row=row, **change) for row in range(12)]
        assert any(not torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) > 1
    assert torch.initial_seed() == 7, "torch's own numbers are left alone"


def test_without_anything_wanted_an_image_stays_as_it_is() -> None:
    assert torch.equal(altered({}), IMAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_one_channel(kind: str) -> None:
    for row in range(8):
        assert altered(KINDS[kind], row=row, image=IMAGE[:1]).shape == (1, 48, 40)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("ours", "theirs"), [(RAND, v2.RandAugment()), (TRIVIAL, v2.TrivialAugmentWide())])
def test_operations_are_those_of_torchvision(name: str, ours: Any, theirs: Any) -> None:
    strengths, signed = theirs._AUGMENTATION_SPACE[name]
    picture = v2.functional.to_pil_image(IMAGE)
    all_levels = strengths(LEVELS + 1, 48, 40)
    for level in (0, 1, 9, 17, 30):
        for sign in (1, -1) if signed else (1,):
            strength = 0.0 if all_levels is None else sign * float(all_levels[level])
            expected = theirs._apply_image_or_video_transform(picture, name, strength, v2.InterpolationMode.NEAREST, {})
            found = OPERATIONS[name](picture, sign * level / LEVELS, ours)
            # Their strengths are float32, which may round a colour to its neighbour.
            assert np.allclose(np.asarray(found, np.int16), np.asarray(expected, np.int16), atol=1), (level, sign)


def test_parts_have_the_area_and_shape_that_were_asked_for() -> None:
    across = torch.arange(224, dtype=torch.uint8).expand(1, 224, 224)
    image = torch.cat([across, across.transpose(1, 2), torch.zeros_like(across)])
    wanted = {"randomCrop": {"minimumArea": 0.2, "maximumArea": 0.6, "stretch": 2}}
    areas, shapes = [], []
    for row in range(200):
        seen = altered(wanted, row=row, image=image).numpy()
        width, height = (int(channel.max()) - int(channel.min()) + 1 for channel in seen[:2])
        areas.append(width * height / 224**2)
        shapes.append(math.log2(width / height))
    assert min(areas) == pytest.approx(0.2, abs=0.03)
    assert max(areas) == pytest.approx(0.6, abs=0.03)
    assert min(shapes) == pytest.approx(-1, abs=0.1)
    assert max(shapes) == pytest.approx(1, abs=0.1)


def test_as_many_images_are_mirrored_as_were_asked_for() -> None:
    count = sum(torch.equal(altered({"horizontalFlip": 0.3}, row=row), IMAGE.flip(-1)) for row in range(500))
    assert count / 500 == pytest.approx(0.3, abs=0.05)


def test_each_kind_does_what_it_is_called_for() -> None:
    gray = altered({"grayscale": 1})
    assert torch.equal(gray[0], gray[1])
    assert torch.equal(gray[1], gray[2])
    edges = [float(altered({"blur": 1}, row=row).float().diff(dim=-1).abs().mean()) for row in range(20)]
    assert sum(edges) / 20 < 0.6 * float(IMAGE.float().diff(dim=-1).abs().mean())
    brightest = [float(altered({"colorJitter": {"brightness": 0.5}}, row=row).float().mean()) for row in range(50)]
    mean = float(IMAGE.float().mean())
    assert min(brightest) < 0.7 * mean
    assert max(brightest) > 1.2 * mean
    never = [altered({"colorJitter": {"hue": 0.5, "probability": 1e-9}}, row=row) for row in range(5)]
    assert all(torch.equal(image, IMAGE) for image in never)
