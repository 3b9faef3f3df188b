"""What is learnt: each objective's options in a file of its own, and the document's section that chooses one.

A file of this folder that has a class of options of the file's own name is an objective's: `masked_lm.py` has MaskedLM.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model

from finetune_trainer.config.base import Rule, Section, describe_choices, requires_type
from finetune_trainer.config.objectives.base import ObjectiveConfig


def _found() -> Iterator[tuple[str, type[ObjectiveConfig]]]:
    for file in pkgutil.iter_modules(__path__):
        for name, value in vars(import_module(f"{__name__}.{file.name}")).items():
            if name.lower() == f"{file.name.replace('_', '')}config" and issubclass(value, ObjectiveConfig):
                yield name.removesuffix("Config"), value


CONFIGS: dict[str, type[ObjectiveConfig]] = dict(_found())
"""Each objective's options by the objective's name in the document."""
SHARING = [name for name, options in CONFIGS.items() if options.shares_encoder]


def field_of(name: str) -> str:
    """Where the document has an objective's options: MaskedLM's below maskedLM."""
    return name[0].lower() + name[1:]


def module_of(name: str) -> str:
    """What the objective's files are called, here and among `finetune_trainer.objectives`: MaskedLM's masked_lm."""
    return CONFIGS[name].__module__.rpartition(".")[2]


_fields: dict[str, Any] = {
    "type": (Literal[tuple(CONFIGS)], Field("CausalLM", description=describe_choices(CONFIGS))),
    **{
        module_of(name): (options | None, Field(None, alias=field_of(name)))
        for name, options in CONFIGS.items()
        if options.model_fields
    },
}
_Named: Any = create_model("_Named", __base__=Section, **_fields)


class ObjectiveChoice(_Named):
    """An objective: its name, and below a field of its own what may be chosen about it."""

    if TYPE_CHECKING:
        type: str

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        requires_type(name, field_of(name), "objective") for name, options in CONFIGS.items() if options.model_fields
    )

    @property
    def config(self) -> ObjectiveConfig:
        """The chosen objective's options, the defaults if the document gives none."""
        given = {info.alias: getattr(self, name) for name, info in type(self).model_fields.items()}
        return given.get(field_of(self.type)) or CONFIGS[self.type]()

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that the objective reads, by their names in `data.train[].columns`."""
        return self.config.roles


TaskName = Annotated[str, Field(max_length=32, pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", description="Name of a task.")]


class TaskSpec(ObjectiveChoice):
    """One of several objectives that share an encoder; it has a head, a loss and metrics of its own."""

    name: TaskName
    weight: float = Field(1.0, gt=0, le=1e6, description="What its loss is multiplied with in the sum that is minimised.")

    rules: ClassVar[tuple[Rule, ...]] = (
        *ObjectiveChoice.rules,
        Rule(
            f"self.type in {SHARING}",
            f"this objective cannot share an encoder with others: set type to one of {', '.join(SHARING)}",
            "type",
        ),
    )


class ObjectiveSpec(ObjectiveChoice):
    """The loss to minimise."""

    tasks: list[TaskSpec] = Field(default_factory=list, max_length=16, description="With MultiTask, what is learnt at once.")

    rules: ClassVar[tuple[Rule, ...]] = (
        *ObjectiveChoice.rules,
        Rule(
            "(self.type == 'MultiTask') == (size(self.tasks) > 0)",
            "several tasks at once need type: MultiTask, and MultiTask needs tasks: add the one or remove the other",
            "tasks",
        ),
        Rule(
            "self.tasks.all(one, self.tasks.exists_one(other, one.name == other.name))",
            "two tasks have the same name: give each a name of its own",
            "tasks",
        ),
    )

    def roles_of(self, task: str | None) -> tuple[str, ...]:
        """The columns that are read of the rows of a task, or of all rows where there are no tasks."""
        return next(one.roles for one in self.tasks if one.name == task) if self.tasks else self.roles
