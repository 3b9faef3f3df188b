"""Image augmentation: torchvision's operations, drawn from the random numbers of a row only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from finetune_trainer.config import ImageAugmentationConfig
from finetune_trainer.data.augmentation.images import LEVELS, OPERATIONS, RAND_AUGMENT, TRIVIAL_AUGMENT, augment_image
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


def augmented(
    options: dict[str, Any], seed: int = 1, epoch: int = 0, row: int = 0, image: torch.Tensor = IMAGE
) -> torch.Tensor:
    pil_image = v2.functional.to_pil_image(image)
    changed = augment_image(pil_image, ImageAugmentationConfig.model_validate(options), sample_generator(seed, epoch, row))
    return v2.functional.pil_to_tensor(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_depends_on_seed_epoch_and_row_only(kind: str) -> None:
    first = [augmented(KINDS[kind], row=row) for row in range(12)]
    torch.manual_seed(7)
    assert all(torch.equal(augmented(KINDS[kind], row=row), image) for row, image in enumerate(first))
    assert all(image.shape == IMAGE.shape and image.dtype == torch.uint8 for image in first)
    for change in ({"seed": 2}, {"epoch": 1}):
        again = [augmented(KINDS[kind], row=row, **change) for row in range(12)]
        assert any(not torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) > 1
    assert torch.initial_seed() == 7, "torch's global generator is not used"


def test_keeps_an_image_without_options() -> None:
    assert torch.equal(augmented({}), IMAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_augments_images_with_one_channel(kind: str) -> None:
    for row in range(8):
        assert augmented(KINDS[kind], row=row, image=IMAGE[:1]).shape == (1, 48, 40)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("ours", "theirs"), [(RAND_AUGMENT, v2.RandAugment()), (TRIVIAL_AUGMENT, v2.TrivialAugmentWide())])
def test_operations_match_torchvision(name: str, ours: Any, theirs: Any) -> None:
    strengths, signed = theirs._AUGMENTATION_SPACE[name]
    pil_image = v2.functional.to_pil_image(IMAGE)
    all_levels = strengths(LEVELS + 1, 48, 40)
    for level in (0, 1, 9, 17, 30):
        for sign in (1, -1) if signed else (1,):
            strength = 0.0 if all_levels is None else sign * float(all_levels[level])
            expected = theirs._apply_image_or_video_transform(pil_image, name, strength, v2.InterpolationMode.NEAREST, {})
            found = OPERATIONS[name](pil_image, sign * level / LEVELS, ours)
            # torchvision's strengths are float32, which may round a color to the next value.
            assert np.allclose(np.asarray(found, np.int16), np.asarray(expected, np.int16), atol=1), (level, sign)


def test_crops_have_the_requested_area_and_aspect_ratio() -> None:
    across = torch.arange(224, dtype=torch.uint8).expand(1, 224, 224)
    image = torch.cat([across, across.transpose(1, 2), torch.zeros_like(across)])
    wanted = {"randomCrop": {"minimumArea": 0.2, "maximumArea": 0.6, "stretch": 2}}
    areas, shapes = [], []
    for row in range(200):
        crop = augmented(wanted, row=row, image=image).numpy()
        width, height = (int(channel.max()) - int(channel.min()) + 1 for channel in crop[:2])
        areas.append(width * height / 224**2)
        shapes.append(math.log2(width / height))
    assert min(areas) == pytest.approx(0.2, abs=0.03)
    assert max(areas) == pytest.approx(0.6, abs=0.03)
    assert min(shapes) == pytest.approx(-1, abs=0.1)
    assert max(shapes) == pytest.approx(1, abs=0.1)


def test_flips_the_requested_share_of_images() -> None:
    count = sum(torch.equal(augmented({"horizontalFlip": 0.3}, row=row), IMAGE.flip(-1)) for row in range(500))
    assert count / 500 == pytest.approx(0.3, abs=0.05)


def test_grayscale_blur_and_color_jitter() -> None:
    gray = augmented({"grayscale": 1})
    assert torch.equal(gray[0], gray[1])
    assert torch.equal(gray[1], gray[2])
    edges = [float(augmented({"blur": 1}, row=row).float().diff(dim=-1).abs().mean()) for row in range(20)]
    assert sum(edges) / 20 < 0.6 * float(IMAGE.float().diff(dim=-1).abs().mean())
    brightest = [float(augmented({"colorJitter": {"brightness": 0.5}}, row=row).float().mean()) for row in range(50)]
    mean = float(IMAGE.float().mean())
    assert min(brightest) < 0.7 * mean
    assert max(brightest) > 1.2 * mean
    never = [augmented({"colorJitter": {"hue": 0.5, "probability": 1e-9}}, row=row) for row in range(5)]
    assert all(torch.equal(image, IMAGE) for image in never)
