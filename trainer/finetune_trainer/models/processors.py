"""What makes a model's inputs of a row: its tokenizer or its image processor, from its source or for one from scratch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, ViTImageProcessor

from finetune_trainer.config import ImageObjectiveConfig, TrainSpec
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.huggingface.pretrained import explained
from finetune_trainer.models.loading import load_tokenizer
from finetune_trainer.models.tokenizer_training import training_corpus
from finetune_trainer.storage.download import TOKENIZER_FILES, localize

IMAGE_SIZE = 224  # where neither the document nor the model says another: what most models for images were trained with


def load(spec: TrainSpec, reading: SourceResolver, alive: Callable[[], None] = lambda: None) -> Any:
    """The processor that the objective asks for; raises what `load_tokenizer` and `load_image_processor` do."""
    if spec.objective.config.processor == "ImageProcessor":
        return load_image_processor(spec, reading)
    options = spec.objective.config
    return load_tokenizer(
        spec.model, training_corpus(spec.data, reading), framed=options.framed,
        sentinels=options.sentinels(spec.data.max_length), cache=reading.cache, credentials=reading.credentials, alive=alive,
    )  # fmt: skip


def load_image_processor(spec: TrainSpec, reading: SourceResolver) -> Any:
    """The one beside the model, or for a model without a source one that fits its configuration.

    Raises ConfigurationError for a source without one, and for a configuration that cannot be used.
    """
    model = spec.model
    if model.source is None:
        return _made(spec)
    folder = localize(
        model.source, cache=reading.cache, credentials=reading.credentials, secret=model.credentials,
        field="spec.model.source", patterns=TOKENIZER_FILES, revision=model.revision,
    )  # fmt: skip
    what = f"spec.model.source: {model.source} holds no image processor that transformers can load"
    with explained(what, "name another source"):
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=model.trust_remote_code)


def _made(spec: TrainSpec) -> Any:
    """Images become squares of numbers between -1 and 1."""
    options = spec.objective.config
    assert isinstance(options, ImageObjectiveConfig)
    settings = dict(spec.model.config)
    with explained("spec.model.config.model_type", "correct it"):
        known = AutoConfig.for_model(settings.pop("model_type"))
    with explained("spec.model.config", "correct its values"):
        config = type(known).from_dict(settings)
        config = getattr(config, "vision_config", config)  # of a model that also reads
        size = options.image_size or getattr(config, "image_size", None) or IMAGE_SIZE
        height, width = (size, size) if isinstance(size, int) else size
        half = [0.5] * getattr(config, "num_channels", 3)
        return ViTImageProcessor(size={"height": height, "width": width}, image_mean=half, image_std=half)
