"""Folders and files that are not a model of transformers are named, with what they are and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.support import tiny

from finetune_trainer.config import ModelConfig
from finetune_trainer.models.loading import load_model
from finetune_trainer.models.tokenizers import load_tokenizer
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 538090408\n"
LFS = "is a Git LFS pointer and not the file itself: run git lfs pull in its repository, or download it again"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder with a model in two files of weights, and its tokenizer."""
    folder = tmp_path / "stored"
    tiny.llama().save_pretrained(folder, max_shard_size="40KB")
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def whole(stored: Path) -> Path:
    """The same with one file of weights."""
    for file in stored.glob("model*"):
        file.unlink()
    tiny.llama().save_pretrained(stored)
    return stored


def load(folder: Path, **document: Any) -> Any:
    spec = ModelConfig.model_validate({"source": f"file://{folder}", **document})
    common: dict[str, Any] = {"cache": folder.parent / "cache", "credentials": Credentials()}
    tokenizer = load_tokenizer(spec, None, **common)  # type: ignore[arg-type]  # it is not trained
    return load_model(spec, CausalLM.from_spec(tiny.spec(), tokenizer), dtype=torch.float32, seed=1, **common)


def error_of(folder: Path, **document: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, **document)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write("model.safetensors", POINTER), f"model.safetensors {LFS}"),
        (write("tokenizer.json", POINTER), f"tokenizer.json {LFS}"),
        (write("config.json", POINTER), f"config.json {LFS}"),
        (write("model.safetensors", b""), "model.safetensors is empty: copy it again"),
        (
            write("model.safetensors", "<!DOCTYPE html><html>Sign in</html>"),
            "model.safetensors is an HTML page, such as a login or error page, and not the file itself: download it again",
        ),
        (write("model.safetensors", "not at all safe"), "model.safetensors is no safetensors file: copy it again"),
        (cut("model.safetensors", 0.01), "model.safetensors is incomplete, with "),
        (cut("model.safetensors", 0.5), "model.safetensors is incomplete, with "),
        (cut("tokenizer.json", 0.5), "tokenizer.json is not JSON ("),
        (cut("config.json", 0.5), "config.json is not JSON ("),
    ],
)
def test_names_a_damaged_file(damage: Callable[[Path], None], message: str, whole: Path) -> None:
    load(whole)
    damage(whole)
    assert error_of(whole).startswith(f"spec.model.source: {whole}/{message}")


def test_names_damaged_weights_in_the_pickled_format(whole: Path) -> None:
    weights = load_file(whole / "model.safetensors")
    (whole / "model.safetensors").unlink()
    torch.save(weights, whole / "pytorch_model.bin")
    load(whole)
    cut("pytorch_model.bin", 0.9)(whole)
    assert error_of(whole).startswith(f"spec.model.source: {whole}/pytorch_model.bin is incomplete, with ")
    write("pytorch_model.bin", POINTER)(whole)
    assert error_of(whole) == f"spec.model.source: {whole}/pytorch_model.bin {LFS}"


def test_names_the_absent_file_of_several(stored: Path) -> None:
    load(stored)
    shards = sorted(stored.glob("model-*.safetensors"))
    shards[1].unlink()
    assert error_of(stored) == (
        f"spec.model.source: {stored}/model.safetensors.index.json names {len(shards)} files of weights, of which 1 are absent "
        f"({shards[1].name}): copy them too"
    )
    (stored / "model.safetensors.index.json").unlink()
    assert error_of(stored) == (
        f"spec.model.source: file://{stored} has weights in several files ({shards[0].name}) and no index of them: copy the "
        "file *.safetensors.index.json too"
    )


def test_names_a_damaged_file_of_several(stored: Path) -> None:
    write("model-00002-of-00003.safetensors", POINTER)(stored)
    write("model.safetensors.index.json", json.dumps({"weight_map": {"a": "model-00002-of-00003.safetensors"}}))(stored)
    assert error_of(stored) == f"spec.model.source: {stored}/model-00002-of-00003.safetensors {LFS}"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty: copy the model into it, or name another source"),
        (["tokenizer.json"], "has no config.json, so it is no model of transformers: name another source"),
        (["model_index.json"], "is a diffusers pipeline, which generates images: name a model of transformers"),
        (["model.Q4_K_M.gguf"], "contains only GGUF files, which are quantized for inference: name the model that they"),
        (
            ["checkpoint-500/config.json"],
            "has no config.json, and 1 of its folders have one: name one of them, such as file://",
        ),
        (["0_Transformer/config.json", "modules.json"], "has no config.json, and 1 of its folders have one: name one of them"),
        (
            ["consolidated.00.pth", "params.json"],
            "contains weights in the format of their authors: name the model in the format",
        ),
    ],
)
def test_names_what_a_folder_is_instead_of_a_model(files: list[str], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert error_of(folder).startswith(f"spec.model.source: file://{folder} {message}")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("tf_model.h5", "contains only weights for TensorFlow: convert them"),
        ("flax_model.msgpack", "contains only weights for Flax: convert them"),
        ("model.onnx", "contains only ONNX files, which are for inference: name the model"),
        ("model.fp16.safetensors", "has weights under another name (model.fp16.safetensors): rename the file to"),
        ("README.md", "contains no weights, such as model.safetensors: copy them, or name another source"),
    ],
)
def test_names_the_weights_that_a_folder_has_instead(other: str, message: str, whole: Path) -> None:
    (whole / "model.safetensors").unlink()
    write(other, "weights")(whole)
    assert error_of(whole).startswith(f"spec.model.source: file://{whole} {message}")


def test_names_model_tokenizer_for_a_source_without_one(whole: Path, tmp_path: Path) -> None:
    for file in whole.glob("token*"):
        file.unlink()
    assert error_of(whole) == (
        f"spec.model.source: file://{whole} contains no tokenizer, such as tokenizer.json: set model.tokenizer.source to that "
        "of its family"
    )
    tiny.tokenizer().save_pretrained(tmp_path / "tokenizer")
    load(whole, tokenizer={"source": f"file://{tmp_path}/tokenizer"})
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(POINTER)
    expected = f"spec.model.tokenizer.source: {tmp_path}/tokenizer/tokenizer.json {LFS}"
    assert error_of(whole, tokenizer={"source": f"file://{tmp_path}/tokenizer"}) == expected


def test_names_the_base_of_an_adapter(whole: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    model = peft.get_peft_model(tiny.llama(), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = str(whole)
    model.save_pretrained(adapter)
    tiny.tokenizer().save_pretrained(adapter)
    assert error_of(adapter) == (
        f"spec.model.source: file://{adapter} is a LoRA adapter of {whole} and not a model: set model.source: file://{whole}, "
        f"and method: {{type: LoRA, lora: {{frozenAdapters: [{{source: file://{adapter}}}]}}}} to train a new adapter on top "
        "of it, or merge it into its base with peft's merge_and_unload and name the result"
    )
    fields = json.loads((adapter / "adapter_config.json").read_text())
    fields |= {"peft_type": "PREFIX_TUNING", "base_model_name_or_path": "someone/some-model"}
    (adapter / "adapter_config.json").write_text(json.dumps(fields))
    message = (
        f"file://{adapter} is a PREFIX_TUNING adapter of someone/some-model and not a model: set model.source: hf://someone"
    )
    assert error_of(adapter).startswith(f"spec.model.source: {message}")


def test_names_the_folder_of_a_file(whole: Path) -> None:
    message = "is a file: name the folder with the model's config.json"
    assert error_of(whole / "model.safetensors").endswith(message)
