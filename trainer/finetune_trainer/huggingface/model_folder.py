"""Recognizes folders and files that are not what transformers loads, and says so in one sentence.

transformers reports a Git LFS pointer as a header that is too large, and an adapter as a configuration without a model_type.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_trainer.config.storage_schemes import FILE, HUB
from finetune_trainer.huggingface.damaged_files import explain_damage
from finetune_trainer.protocol.outcome import ConfigurationError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""The files of weights, or with the names of such files, of which transformers reads the first that there is."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "*.tiktoken", "spm.model", "source.spm", "tekken.json",
)  # fmt: skip
_SMALL_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.spm", "*.tiktoken",
    "*.jinja",
)  # fmt: skip
_OTHER_WEIGHTS = {
    "*.gguf": ("only GGUF files, which are quantized for inference", "name the model that they were made from"),
    "tf_model.h5": ("only weights for TensorFlow", "convert them with transformers 4: from_pretrained(from_tf=True)"),
    "flax_model.msgpack": ("only weights for Flax", "convert them with transformers 4: from_pretrained(from_flax=True)"),
    "*.onnx": ("only ONNX files, which are for inference", "name the model that they were made from"),
    "consolidated.*": ("weights in the format of their authors", "name the model in the format of transformers"),
    "*.pth": ("weights in a format of their own", "name the model in the format of transformers"),
    "*.ckpt": ("weights in a format of their own", "name the model in the format of transformers"),
}
"""Files with weights that are not loaded: what a folder with nothing else contains, and the remedy."""


def validate_model_folder(folder: Path, field: str, uri: str) -> None:
    """Raise ConfigurationError, which begins with `field`, for a source without a configuration and for damaged files.

    `uri` is the source as the document names it.
    """
    if folder.is_file():
        raise ConfigurationError(f"{field}: {uri} is a file: name the folder with the model's config.json")
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{field}: {uri} {_explain_missing_config(folder, uri)}")
    validate_files(folder, field)


def validate_files(folder: Path, field: str) -> None:
    """Raise ConfigurationError, which begins with `field`, for a damaged file of the configuration or the tokenizer."""
    for pattern in _SMALL_FILES:
        for file in sorted(folder.glob(pattern)):
            _validate_file(file, field)


def validate_weights(folder: Path, field: str, uri: str) -> None:
    """Raise ConfigurationError, which begins with `field`, for a folder without weights or with a part of them."""
    for name in WEIGHTS:
        file = folder / name
        if file.is_file():
            _validate_file(file, field)
            for shard in _shards(file, field):
                _validate_file(shard, field)
            return
    raise ConfigurationError(f"{field}: {uri} {_explain_missing_weights(folder)}")


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has a file that a tokenizer is made of."""
    return any(next(folder.glob(pattern), None) for pattern in TOKENIZER_FILES)


def _validate_file(file: Path, field: str) -> None:
    if problem := explain_damage(file):
        raise ConfigurationError(f"{field}: {file} {problem}")


def _shards(file: Path, field: str) -> list[Path]:
    """The files that an index of weights names; none for a file that is not an index."""
    if not file.name.endswith(".index.json"):
        return []
    try:
        shards = [file.parent / name for name in sorted(set(json.loads(file.read_text())["weight_map"].values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{field}: {file} is no index of weights: copy it again") from error
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ConfigurationError(
            f"{field}: {file} names {len(shards)} files of weights, of which {len(missing)} are absent ({missing[0]}): copy "
            "them too"
        )
    return shards


def _explain_missing_weights(folder: Path) -> str:
    """What the folder has instead of weights, and the remedy."""
    for kind in ("safetensors", "bin"):
        if shards := sorted(folder.glob(f"*-of-*.{kind}")):
            return (
                f"has weights in several files ({shards[0].name}) and no index of them: copy the file *.{kind}.index.json too"
            )
    if other := next(folder.glob("*.safetensors"), None):
        return f"has weights under another name ({other.name}): rename the file to model.safetensors"
    for pattern, (content, remedy) in _OTHER_WEIGHTS.items():
        if next(folder.glob(pattern), None):
            return f"contains {content}: {remedy}"
    return "contains no weights, such as model.safetensors: copy them, or name another source"


def _explain_missing_config(folder: Path, uri: str) -> str:
    """What the folder is instead of a model, and the remedy."""
    if (folder / "adapter_config.json").is_file():
        return _explain_adapter(folder / "adapter_config.json", uri)
    if (folder / "model_index.json").is_file():
        return "is a diffusers pipeline, which generates images: name a model of transformers"
    below = sorted((config.parent for config in folder.glob("*/config.json")), key=_modification_time)
    if below:
        remedy = f"name one of them, such as {uri.rstrip('/')}/{below[-1].name}"
        return f"has no config.json, and {len(below)} of its folders have one: {remedy}"
    for pattern, (content, remedy) in _OTHER_WEIGHTS.items():
        if next(folder.glob(pattern), None):
            return f"contains {content}: {remedy}"
    if not any(folder.iterdir()):
        return "is empty: copy the model into it, or name another source"
    return "has no config.json, so it is no model of transformers: name another source"


def _explain_adapter(config_file: Path, uri: str) -> str:
    try:
        config: dict[str, Any] = json.loads(config_file.read_text())
    except ValueError:
        return "has an adapter_config.json that is not JSON: copy it again"
    base = str(config.get("base_model_name_or_path") or "")
    named = base_uri(base) if base else "its base model"
    kind = {"LORA": "LoRA"}.get(str(config.get("peft_type")), str(config.get("peft_type")))
    if kind == "LoRA":
        remedy = (
            f"set model.source: {named}, and method: {{type: LoRA, lora: {{frozenAdapters: [{{source: {uri}}}]}}}} to train a "
            "new adapter on top of it, or merge it into its base with peft's merge_and_unload and name the result"
        )
    else:
        remedy = f"set model.source: {named}, or merge the adapter into it with peft's merge_and_unload and name the result"
    return f"is a {kind} adapter of {base or 'a model that it does not name'} and not a model: {remedy}"


def base_uri(name: str) -> str:
    """The URI of the base model that an adapter names: a URI already, a path, or a name on the hub."""
    if "://" in name:
        return name
    return f"{FILE.prefix}{name}" if Path(name).exists() else f"{HUB.prefix}{name}"


def _modification_time(folder: Path) -> float:
    return folder.stat().st_mtime
