"""Separates a model's pretrained body from its head, the last layers, which an objective may replace by new ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from finetune_trainer.objectives import Objective


def head_modules(model: Any) -> list[str]:
    """Names of the modules with weights outside the model's body, and of a pooler, which is between the two."""
    body = model.base_model
    if body is model:
        return []
    heads = [name for name, child in model.named_children() if child is not body and _has_weights(child)]
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "pooler" and _has_weights(module) and name not in heads:
            heads.append(name)
    return heads


def all_head_modules(model: Any, objective: Objective) -> list[str]:
    """Names of the heads of all models that the objective trains, by their names in `model`."""
    return _heads_of_parts(model, objective, list(objective.members))


def new_head_modules(model: Any, objective: Objective) -> list[str]:
    """Names of the heads that the objective initializes at random, which adapters alone would leave untrained."""
    names = [name for name, member in objective.members.items() if member.model_setup.has_new_head]
    return _heads_of_parts(model, objective, names)


def _heads_of_parts(model: Any, objective: Objective, part_names: Iterable[str]) -> list[str]:
    names = module_names(model)
    parts = objective.exported_models(model)
    heads: dict[str, None] = {}  # an ordered set: tasks may share modules
    for part_name in part_names:
        part = parts[part_name]
        for name in head_modules(part):
            heads[names[id(part.get_submodule(name))]] = None
    return list(heads)


def module_names(model: Any) -> dict[int, str]:
    """Each module's name in the model, by the module's id; a module that is registered twice has one name here."""
    return {id(module): name for name, module in model.named_modules()}


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a module or parameter is one of these modules or inside one, by their names."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _has_weights(module: Any) -> bool:
    return next(module.parameters(), None) is not None
