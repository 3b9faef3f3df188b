"""Loads an exported model, or an adapter with its base model, as a function that answers an input."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from finetune_trainer.huggingface.model_folder import base_uri
from finetune_trainer.inference import pipelines
from finetune_trainer.inference.adapter_head import label_options
from finetune_trainer.inference.pipelines import validate_length
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import localize

GENERATION = "text-generation"
IMAGE_TASKS = ("image-classification", "image-feature-extraction")


def load_predictor(folder: Path, task: str, cache: Path, max_new_tokens: int) -> Callable[[Any], Any]:
    """The function that answers one input with the model of the folder, or with its adapter on the base that it names.

    Raises ConfigurationError for a folder without a model and for an unknown task.
    """
    import transformers

    from finetune_trainer.huggingface.pretrained import max_positions
    from finetune_trainer.models.embeddings import grow_embeddings

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    has_adapter = (folder / "adapter_config.json").is_file()
    base = _localize_base(folder / "adapter_config.json", cache) if has_adapter else folder
    if not has_adapter:
        _validate_model_folder(folder)
    if task in pipelines.TASKS:
        return pipelines.TASKS[task](folder, base, max_new_tokens)
    options = {"tokenizer": str(folder), **label_options(folder)} if has_adapter else {}
    try:
        pipe = transformers.pipeline(task, model=str(base), **options)
    except KeyError as error:
        raise ConfigurationError(f"--task: {str(error).strip(chr(34))[:300]}") from error
    if has_adapter:
        grow_embeddings(pipe.model, pipe.tokenizer)  # the adapter has the rows of tokens that the base does not know
        pipe.model.load_adapter(str(folder))
    return partial(_predict, pipe, max_positions(pipe.model), max_new_tokens)


def _localize_base(adapter_config: Path, cache: Path) -> Path:
    """The folder of the base model that the adapter names: a URI, a path, or a name on the hub."""
    uri = base_uri(json.loads(adapter_config.read_text())["base_model_name_or_path"])
    return localize(uri, cache=cache, credentials=Credentials(), secret=None, field=str(adapter_config))


def _validate_model_folder(folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    models = ", ".join(sorted(str(file.parent) for file in folder.glob("*/config.json")))
    remedy = f"name one of {models}" if models else "name another"
    raise ConfigurationError(f"MODEL: {folder} contains no model: {remedy}")


def _predict(pipe: Any, positions: int | None, max_new_tokens: int, value: Any) -> Any:
    from finetune_trainer.huggingface.pretrained import count_tokens

    prepared = _decode_image(value) if pipe.task in IMAGE_TASKS else _replace_mask_token(value, pipe)
    if pipe.tokenizer is not None and positions is not None:
        length = count_tokens(prepared, pipe.tokenizer)
        # Generation needs room for one new token.
        validate_length(value, length, positions - 1 if pipe.task == GENERATION else positions)
        max_new_tokens = min(max_new_tokens, positions - length)
    return pipe(prepared, **_pipeline_options(pipe.task, max_new_tokens))


def _decode_image(value: Any) -> Any:
    """The image as training decodes it, which pipelines do differently for 16 bits and for transparency."""
    from finetune_trainer.data.records.images import decode_image
    from finetune_trainer.data.records.row import Row

    return decode_image(Row({"image": value}, "--input", {"image": "image"}), "RGB") if isinstance(value, str) else value


def _replace_mask_token(value: Any, pipe: Any) -> Any:
    """Replace [MASK] and <mask> in a text by the mask token of the model's tokenizer."""
    mask_token = getattr(pipe.tokenizer, "mask_token", None)
    if pipe.task != "fill-mask" or not mask_token or not isinstance(value, str):
        return value
    return value.replace("[MASK]", mask_token).replace("<mask>", mask_token)


def _pipeline_options(task: str, max_new_tokens: int) -> dict[str, Any]:
    match task:
        case "text-generation":
            return {"max_new_tokens": max_new_tokens, "do_sample": False, "return_full_text": False}
        case "text-classification":
            return {"top_k": None}
        case "token-classification":
            return {"aggregation_strategy": "first"}  # the other tokens of a word have no loss in training
        case _:
            return {}
