"""Configs of the objectives, one file each, and the section of the document that chooses one of them.

A file of this folder that has a config of the file's own name belongs to an objective: `masked_lm.py` has `MaskedLMConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model

from finetune_trainer.config.base import Rule, Section, describe_choices, requires_type
from finetune_trainer.config.discovery import find_configs, module_name
from finetune_trainer.config.objectives.base import ObjectiveConfig

CONFIGS: dict[str, type[ObjectiveConfig]] = find_configs(__name__, __path__, ObjectiveConfig)
"""The config of each objective, by the objective's name in the document."""
ENCODER_SHARING = [name for name, config in CONFIGS.items() if config.shares_encoder]


def field_of(name: str) -> str:
    """The document's field for an objective's config: maskedLM for MaskedLM."""
    return name[0].lower() + name[1:]


def module_of(name: str) -> str:
    """The name of the objective's modules, here and in `finetune_trainer.objectives`: masked_lm for MaskedLM."""
    return module_name(CONFIGS[name])


_fields: dict[str, Any] = {
    "type": (Literal[tuple(CONFIGS)], Field("CausalLM", description=describe_choices(CONFIGS))),
    **{
        module_of(name): (config | None, Field(None, alias=field_of(name)))
        for name, config in CONFIGS.items()
        if config.model_fields
    },
}
_Named: Any = create_model("_Named", __base__=Section, **_fields)


class ObjectiveChoice(_Named):
    """The name of an objective, and its config in a field of its own."""

    if TYPE_CHECKING:
        type: str

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        requires_type(name, field_of(name), "objective") for name, config in CONFIGS.items() if config.model_fields
    )

    @property
    def config(self) -> ObjectiveConfig:
        """The config of the chosen objective, with the defaults if the document has none."""
        given: ObjectiveConfig | None = getattr(self, module_of(self.type), None)
        return given or CONFIGS[self.type]()

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that the objective reads, by their names in `data.train[].columns`."""
        return self.config.roles


TaskName = Annotated[str, Field(max_length=32, pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", description="Name of a task.")]


class TaskSpec(ObjectiveChoice):
    """One of several objectives that share an encoder. Each has a head, a loss and metrics of its own."""

    name: TaskName
    weight: float = Field(1.0, gt=0, le=1e6, description="Factor of its loss in the sum that is minimized.")

    rules: ClassVar[tuple[Rule, ...]] = (
        *ObjectiveChoice.rules,
        Rule(
            f"self.type in {ENCODER_SHARING}",
            f"this objective cannot share an encoder with others: set type to one of {', '.join(ENCODER_SHARING)}",
            "type",
        ),
    )


class ObjectiveSpec(ObjectiveChoice):
    """The loss to minimize."""

    tasks: list[TaskSpec] = Field(
        default_factory=list, max_length=16, description="With MultiTask, the tasks that are trained together."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        *ObjectiveChoice.rules,
        Rule(
            "(self.type == 'MultiTask') == (size(self.tasks) > 0)",
            "several tasks need type: MultiTask, and MultiTask needs tasks: add one or remove the other",
            "tasks",
        ),
        Rule(
            "self.tasks.all(one, self.tasks.exists_one(other, one.name == other.name))",
            "two tasks have the same name: give each a name of its own",
            "tasks",
        ),
    )

    def roles_of(self, task: str | None) -> tuple[str, ...]:
        """The columns that are read from the rows of a task, or from all rows where there are no tasks."""
        for task_spec in self.tasks:
            if task_spec.name == task:
                return task_spec.roles
        assert not self.tasks, f"the document has no task {task}"
        return self.roles
