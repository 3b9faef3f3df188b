"""Loads the processor that turns rows into a model's inputs: a tokenizer or an image processor."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoImageProcessor, ViTImageProcessor

from finetune_trainer.config import ImageObjectiveConfig, ModelConfig, TrainSpec
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.huggingface.pretrained import explain_errors
from finetune_trainer.models.source import fetch_model_folder
from finetune_trainer.models.tokenizer_training import training_corpus
from finetune_trainer.models.tokenizers import load_tokenizer

DEFAULT_IMAGE_SIZE = 224
"""The image size in pixels if neither the document nor the model has one: most image models were trained with it."""


def load_processor(spec: TrainSpec, resolver: SourceResolver) -> Any:
    """The processor for the document's objective; raises the errors of `load_tokenizer` and `load_image_processor`."""
    options = spec.objective.config
    if isinstance(options, ImageObjectiveConfig):
        return load_image_processor(spec.model, options.image_size, resolver)
    return load_tokenizer(
        spec.model, training_corpus(spec.data, resolver), adds_special_tokens=options.adds_special_tokens,
        sentinels=options.sentinel_count(spec.data.max_length), cache=resolver.cache, credentials=resolver.credentials,
    )  # fmt: skip


def load_image_processor(config: ModelConfig, image_size: int | None, resolver: SourceResolver) -> Any:
    """The image processor of the model's source, or a new one for a model without a source.

    Raises ConfigurationError for a source without an image processor, and for an invalid model configuration.
    """
    if config.source is None:
        return _create_image_processor(config, image_size)
    folder = fetch_model_folder(config, cache=resolver.cache, credentials=resolver.credentials)
    problem = f"spec.model.source: {config.source} holds no image processor that transformers can load"
    with explain_errors(problem, "name another source"):
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=config.trust_remote_code)


def _create_image_processor(config: ModelConfig, image_size: int | None) -> Any:
    """Resize images to the model's size and scale pixel values to [-1, 1]."""
    fields = dict(config.config)
    with explain_errors("spec.model.config.model_type", "correct it"):
        config_class = type(AutoConfig.for_model(fields.pop("model_type")))
    with explain_errors("spec.model.config", "correct its values"):
        model_config = config_class.from_dict(fields)
        vision_config = getattr(model_config, "vision_config", model_config)  # models of text and images have a separate one
        size = image_size or getattr(vision_config, "image_size", None) or DEFAULT_IMAGE_SIZE
        height, width = (size, size) if isinstance(size, int) else size
        half = [0.5] * getattr(vision_config, "num_channels", 3)
        return ViTImageProcessor(size={"height": height, "width": width}, image_mean=half, image_std=half)
