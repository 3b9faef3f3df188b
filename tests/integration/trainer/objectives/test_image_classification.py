"""Image classification: losses and processors of transformers, the images of the pipeline, and training."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support import corpora, tiny
from tests.support.learning import VIT, learn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BitImageProcessor,
    ConvNextImageProcessor,
    EfficientNetImageProcessor,
    ImageGPTImageProcessor,
    MobileViTImageProcessor,
    PreTrainedModel,
    TextNetImageProcessor,
    ViTImageProcessor,
    pipeline,
)

from finetune_trainer import config
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.models import loading, processors
from finetune_trainer.objectives.image_classification import ImageClassification
from finetune_trainer.objectives.inputs.images import ImagePreprocessor
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training import engine

RESNET = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
SINGLE = corpora.digits(40)
ROWS = {
    "SingleLabel": SINGLE,
    "MultiLabel": [row | {"label": [n for n, d in (("even", 2), ("third", 3)) if row["label"] % d == 0]} for row in SINGLE],
    "Regression": [row | {"label": float(row["label"])} for row in SINGLE],
}


def document(family: dict[str, Any] = VIT, **options: Any) -> config.TrainSpec:
    return tiny.spec(
        model={"config": family, "tokenizer": None},
        objective={"type": "ImageClassification", "imageClassification": options},
    )


def records(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row(row, f"rows.jsonl:{number}", {key: key for key in row}) for number, row in enumerate(rows, start=1)]


def objective(problem: str = "SingleLabel", family: dict[str, Any] = VIT, **options: Any) -> ImageClassification:
    spec = document(family, problem=problem, **options)
    made = ImageClassification.from_spec(
        spec, processors.load_processor(spec, SourceResolver(spec.objective, Path(), Credentials()))
    )
    made.encoder.set_statistics(made.encoder.collect_statistics(lambda: records(ROWS[problem])))
    return made


def examples(classifier: ImageClassification, rows: list[dict[str, Any]]) -> list[Sample]:
    made = [example for one in classifier.encoder.encode(records(rows)) for example in one.examples]
    return [{**one, "target": np.asarray(one["target"], np.float32)} for one in made]


def batch_of(classifier: ImageClassification, rows: list[dict[str, Any]], **layout: Any) -> Batch:
    randoms = [sample_generator(1, 0, row) for row in range(len(rows))]
    return classifier.collator.collate(examples(classifier, rows), randoms, Layout(**layout))


def model(classifier: ImageClassification, folder: Path, family: dict[str, Any] = VIT) -> PreTrainedModel:
    spec, credentials = document(family).model, Credentials()
    return loading.load_model(spec, classifier, dtype=torch.float32, cache=folder, credentials=credentials, seed=0)


@pytest.mark.parametrize("family", [VIT, RESNET], ids=lambda family: family["model_type"])
@pytest.mark.parametrize("problem", ROWS)
def test_computes_the_loss_of_transformers(problem: str, family: dict[str, Any], tmp_path: Path) -> None:
    classifier = objective(problem, family, imageSize=16)
    learner, batch = model(classifier, tmp_path, family), batch_of(classifier, ROWS[problem])
    classifier.model_setup.prepare(learner, None)  # type: ignore[arg-type]  # it asks nothing of the world
    labels = batch.targets["labels"]
    theirs = batch.inputs | {"labels": labels if problem == "MultiLabel" else labels[:, 0]}
    if problem == "SingleLabel":
        theirs["labels"] = labels[:, 0].long()
    for mode in (True, False):  # batch norms differ
        learner.train(mode)
        mean = classifier.loss.loss_sum(learner, batch)[0] / classifier.collator.count_terms(batch)[0]
        assert mean.item() == pytest.approx(learner(**theirs).loss.item(), rel=1e-5)


@pytest.mark.parametrize("problem", ROWS)
def test_rank_without_rows_has_zero_loss(problem: str, tmp_path: Path) -> None:
    classifier = objective(problem)
    batch = classifier.collator.collate([], [], Layout())
    assert classifier.collator.count_terms(batch) == [0]
    total = classifier.loss.loss_sum(model(classifier, tmp_path), batch)
    total.sum().backward()
    assert total.item() == 0


@pytest.mark.parametrize(
    ("processor", "shape"),
    [
        (ViTImageProcessor(size={"height": 20, "width": 30}), (3, 20, 30)),
        (ViTImageProcessor(size={"height": 20, "width": 30}, image_mean=[0.5], image_std=[0.5]), (1, 20, 30)),
        (ViTImageProcessor(do_normalize=False), (3, 224, 224)),
        (BitImageProcessor(), (3, 224, 224)),  # crops the middle
        (ConvNextImageProcessor(size={"shortest_edge": 160}), (3, 160, 160)),  # has a crop of its own
        (EfficientNetImageProcessor(), (3, 346, 346)),  # normalises twice
        (MobileViTImageProcessor(), (3, 256, 256)),  # turns colours around
    ],
    ids=lambda value: type(value).__name__,
)
def test_preprocesses_images_like_the_processor(processor: Any, shape: tuple[int, int, int]) -> None:
    images = ImagePreprocessor(processor)
    assert images.shape == shape
    random = np.random.Generator(np.random.Philox(0))
    pictures = [
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).convert(images.mode) for size in ((90, 70), (40, 99))
    ]
    rows = records([{"image": encoded(picture)} for picture in pictures])
    expected = torch.cat([processor(images=[picture], return_tensors="pt")["pixel_values"] for picture in pictures])
    found = images.pixel_values(images.decode(rows), torch.float32)
    assert torch.allclose(found, expected.float(), atol=1e-6)
    assert images.pixel_values(images.decode(rows), torch.bfloat16).dtype == torch.bfloat16


def encoded(picture: Image.Image) -> str:
    return base64.b64encode(corpora.png(picture)).decode()


@pytest.mark.parametrize(
    ("processor", "why"),
    [
        (ImageGPTImageProcessor(clusters=np.zeros((4, 3))), "asks for more than the pixels of one image"),
        (TextNetImageProcessor(), "gives images of different shapes different sizes"),
        (ViTImageProcessor(image_mean=[0.5] * 5, image_std=[0.5] * 5), "asks for more than"),
    ],
)
def test_rejects_unsupported_processors(processor: Any, why: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ImagePreprocessor(processor)
    assert str(raised.value).startswith(f"spec.model.source: its {type(processor).__name__} {why}")


def test_augments_only_training_images_with_a_generator_each() -> None:
    wanted = {"randomCrop": {}, "horizontalFlip": 0.5, "trivialAugment": True}
    classifier, plain = objective(augmentation=wanted), objective()
    rows = examples(classifier, SINGLE)
    randoms = [sample_generator(1, 0, row) for row in range(len(rows))]
    untouched = plain.collator.collate(rows, randoms, Layout(training=True)).inputs["pixel_values"]
    assert torch.equal(classifier.collator.collate(rows, randoms, Layout()).inputs["pixel_values"], untouched)
    together = batch_of(classifier, SINGLE, training=True).inputs["pixel_values"]
    assert not torch.equal(together, untouched)
    for index in (0, 7, 39):
        alone = classifier.collator.collate([rows[index]], [sample_generator(1, 0, index)], Layout(training=True)).inputs[
            "pixel_values"
        ]
        assert torch.equal(alone[0], together[index])
    later = classifier.collator.collate(rows, [sample_generator(1, 1, row) for row in range(len(rows))], Layout(training=True))
    assert not torch.equal(later.inputs["pixel_values"], together)


def test_fingerprint_depends_on_processor_and_problem() -> None:
    same = [objective(augmentation={"horizontalFlip": 0.5}), objective()]
    assert same[0].encoder.fingerprint == same[1].encoder.fingerprint, "altering comes later"
    others = [objective(imageSize=20), objective("MultiLabel"), objective(labels=[str(digit) for digit in range(10)])]
    assert len({str(one.encoder.fingerprint) for one in [*same, *others]}) == 4


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        (VIT, (3, 16, 16)),
        (VIT | {"num_channels": 1, "image_size": [16, 24]}, (1, 16, 24)),
        (RESNET, (3, 224, 224)),
        ({"model_type": "clip", "vision_config": {"image_size": 64}}, (3, 64, 64)),
    ],
)
def test_creates_processor_for_model_from_scratch(family: dict[str, Any], shape: tuple[int, int, int]) -> None:
    spec = document(family)
    processor = processors.load_processor(spec, SourceResolver(spec.objective, Path(), Credentials()))
    assert ImagePreprocessor(processor).shape == shape


def test_rejects_model_that_cannot_read_the_images(tmp_path: Path) -> None:
    classifier = objective(imageSize=32)
    with pytest.raises(ConfigurationError, match=r"^spec.model: this vit cannot compute on images of 3 x 32 x 32 \(channels"):
        classifier.model_setup.prepare(model(classifier, tmp_path), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ({"model_type": "vitt"}, "spec.model.config.model_type ("),
        (VIT | {"image_size": "large"}, "spec.model.config ("),
        (VIT | {"image_size": [1, 2, 3]}, "spec.model.config ("),
    ],
)
def test_rejects_configurations_without_a_processor(family: dict[str, Any], message: str) -> None:
    spec = document(family)
    with pytest.raises(ConfigurationError) as raised:
        processors.load_processor(spec, SourceResolver(spec.objective, Path(), Credentials()))
    assert str(raised.value).startswith(message)


def test_rejects_source_without_a_processor(tmp_path: Path) -> None:
    AutoModelForImageClassification.from_config(AutoConfig.for_model(**VIT)).save_pretrained(tmp_path / "model")
    spec = tiny.spec(
        model={"source": f"file://{tmp_path}/model", "initialization": "Pretrained", "tokenizer": None, "config": {}},
        objective={"type": "ImageClassification"},
    )
    reading = SourceResolver(spec.objective, tmp_path, Credentials())
    with pytest.raises(ConfigurationError, match=r"^spec.model.source: file://.* holds no image processor that transformers"):
        processors.load_processor(spec, reading)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    assert ImagePreprocessor(processors.load_processor(spec, reading)).shape == (3, 16, 16)


def test_rejects_gradient_checkpointing_where_unsupported(tmp_path: Path) -> None:
    family = {"model_type": "mobilenet_v2", "image_size": 32}
    classifier = objective(family=family, imageSize=32)
    spec = tiny.spec(training={"gradientCheckpointing": True})
    with pytest.raises(ConfigurationError, match=r"^spec.training.gradientCheckpointing: this model does not support it"):
        engine.build_engine(
            model(classifier, tmp_path, family),
            spec.training,
            spec.deepspeed,
            None,
            ProcessGroup(0, 1, 0, 1, torch.device("cpu")),
            "Float32",
        )


def folder_of_digits(folder: Path) -> Path:
    for number, row in enumerate(corpora.digits()):
        path = folder / "digits" / f"digit-{row['label']}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(row["image"]))
    return folder / "digits"


def test_trains_from_a_folder_with_the_images_of_the_pipeline(tmp_path: Path) -> None:
    digits = folder_of_digits(tmp_path)
    trained = learn(
        tmp_path, corpora.digits(1), model={"config": VIT, "tokenizer": None}, data={"train": [{"source": f"file://{digits}"}]},
        objective={
            "type": "ImageClassification",
            "imageClassification": {"augmentation": {"randomCrop": {"minimumArea": 0.7}}},
        },
        training={"maxSteps": 100, "batchSize": 32, "microBatchSize": 32, "optimizer": {"learningRate": 2e-3}},
    )  # fmt: skip
    assert trained.before["accuracy"] < 0.2
    assert trained.after["accuracy"] > 0.75
    _same_as_the_pipeline(trained.model, [*digits.glob("digit-3/*.png")][:4], tmp_path)


def test_trains_an_exported_model_with_other_labels(tmp_path: Path) -> None:
    first = learn(
        tmp_path / "first", corpora.digits(300), model={"config": RESNET, "tokenizer": None},
        objective={"type": "ImageClassification", "imageClassification": {"imageSize": 16}}, training={"maxSteps": 20},
    )  # fmt: skip
    rows = [row | {"label": "even" if row["label"] % 2 == 0 else "odd"} for row in corpora.digits(300)]
    second = learn(
        tmp_path / "second", rows, model={"source": f"file://{first.model}"}, objective={"type": "ImageClassification"},
        training={"maxSteps": 30},
    )  # fmt: skip
    assert second.before["accuracy"] < 0.65
    assert second.after["accuracy"] > 0.75
    assert set(second.after) >= {"f1[even]", "f1[odd]"}


def _same_as_the_pipeline(exported: Path, files: list[Path], cache: Path) -> None:
    spec = tiny.spec(
        model={"source": f"file://{exported}", "initialization": "Pretrained", "tokenizer": None, "config": {}},
        objective={"type": "ImageClassification"},
    )
    made = ImageClassification.from_spec(
        spec, processors.load_processor(spec, SourceResolver(spec.objective, cache, Credentials()))
    )
    rows = [{"image": str(file), "label": file.parent.name} for file in files]
    made.encoder.set_statistics({"labels": [f"digit-{digit}" for digit in range(10)]})
    batch = batch_of(made, rows)
    classify = pipeline("image-classification", str(exported))
    with torch.no_grad():
        logits = classify.model(batch.inputs["pixel_values"]).logits
    for file, expected in zip(files, logits, strict=True):
        answers = classify(str(file), top_k=10, function_to_apply="none")
        scores = {answer["label"]: answer["score"] for answer in answers}
        found = torch.tensor([scores[f"digit-{digit}"] for digit in range(10)])
        assert torch.allclose(found, expected, atol=1e-5)
        assert len(scores) == 10
