"""Configuration classes are found by the names of their files."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from finetune_trainer.config.base import Section
from finetune_trainer.config.discovery import find_configs, module_name
from finetune_trainer.config.methods import METHODS

IMPORT = "from finetune_trainer.config.base import Section\n"
FILES = {
    "__init__": "",
    "two_words": IMPORT + "class TwoWordsConfig(Section): ...\nclass Other(Section): ...",
    "shared": IMPORT + "class HelperConfig(Section): ...",
}


def test_finds_classes_with_the_name_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "discovered_choices"
    folder.mkdir()
    for name, code in FILES.items():
        (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("discovered_choices")
    configs = find_configs("discovered_choices", package.__path__, Section)
    assert {name: module_name(config) for name, config in configs.items()} == {"TwoWords": "two_words"}


def test_finds_all_methods() -> None:
    assert list(METHODS) == ["Bottleneck", "Full", "IA3", "LoRA", "PromptTuning"]
