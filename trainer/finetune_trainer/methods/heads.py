"""Where a model's body ends: what pretraining learns, and the last layers that an objective may put in the place of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from finetune_trainer.objectives import Objective


def head_of(model: Any) -> list[str]:
    """Names of the modules with weights outside the model's body, and of a pooler, which stands between the two."""
    body = model.base_model
    if body is model:
        return []
    own = [name for name, child in model.named_children() if child is not body and _has_weights(child)]
    poolers = [name for name, module in model.named_modules() if name.split(".")[-1] == "pooler" and _has_weights(module)]
    return own + [name for name in poolers if name not in own]


def heads(model: Any, objective: Objective, only_new: bool = False) -> list[str]:
    """The same of each model that the objective trains, by their names in `model`.

    New is what an objective puts on at random, so that adapters alone would leave it so.
    """
    names = names_of(model)
    parts = objective.parts(model)
    chosen = [parts[name] for name, member in objective.members().items() if member.has_new_head or not only_new]
    return list(dict.fromkeys(names[id(part.get_submodule(name))] for part in chosen for name in head_of(part)))


def names_of(model: Any) -> dict[int, str]:
    """Each module's name in the model, by its id; what is shared has one here."""
    return {id(module): name for name, module in model.named_modules()}


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether the module or parameter of this name is one of these modules or a part of one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _has_weights(module: Any) -> bool:
    return next(module.parameters(), None) is not None
