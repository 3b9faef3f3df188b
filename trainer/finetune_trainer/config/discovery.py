"""Finds the configuration classes of a package by file name, so that a new file is enough to add a choice to the document."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import TypeVar

from finetune_trainer.config.base import Section

ConfigT = TypeVar("ConfigT", bound=Section)


def find_configs(package: str, path: Iterable[str], base: type[ConfigT]) -> dict[str, type[ConfigT]]:
    """The configuration classes of a package by the name of the choice, in the order of the files.

    A file has one if it defines a subclass of `base` with the file's own name and the suffix Config: `prompt_tuning.py` with
    `PromptTuningConfig` is the choice PromptTuning. `path` is the package's `__path__`.
    """
    configs: dict[str, type[ConfigT]] = {}
    for file in pkgutil.iter_modules(path):
        class_name = f"{file.name.replace('_', '')}config"
        for name, value in vars(import_module(f"{package}.{file.name}")).items():
            if name.lower() == class_name and issubclass(value, base):
                configs[name.removesuffix("Config")] = value
    return configs


def module_name(config: type[Section]) -> str:
    """The name of the file that defines a configuration class, without its folder and suffix."""
    return config.__module__.rpartition(".")[2]
