"""Fine-tuning methods: one file of options for each, and `spec.method`, the section that chooses one.

A method is found by its file: `prompt_tuning.py` defines `PromptTuningConfig`, and `finetune_trainer/methods/prompt_tuning.py`
the class `PromptTuning`, which applies it to a model. Its options are the field `promptTuning` of the section.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, create_model
from pydantic.alias_generators import to_camel

from finetune_trainer.config.base import Rule, Section, describe_choices, requires_type
from finetune_trainer.config.discovery import find_configs, module_name
from finetune_trainer.config.methods.base import MethodConfig
from finetune_trainer.config.methods.freezing import FreezeConfig, UnfreezeConfig

__all__ = [
    "ADAPTER_METHODS",
    "INSEPARABLE_METHODS",
    "METHODS",
    "UNMERGEABLE_METHODS",
    "UNPACKABLE_METHODS",
    "FreezeConfig",
    "MethodConfig",
    "MethodSpec",
    "UnfreezeConfig",
]  # fmt: skip

METHODS: dict[str, type[MethodConfig]] = find_configs(__name__, __path__, MethodConfig)
"""The class of each method's options by the method's name in the document."""
ADAPTER_METHODS = [name for name, config in METHODS.items() if config.trains_adapter]
UNMERGEABLE_METHODS = [name for name, config in METHODS.items() if not config.supports_merging]
INSEPARABLE_METHODS = [name for name, config in METHODS.items() if not config.supports_adapter_export]
UNPACKABLE_METHODS = [name for name, config in METHODS.items() if not config.supports_packing]

_CONFIGURABLE = {name: config for name, config in METHODS.items() if config.model_fields}
_requires_method = partial(requires_type, kind="method", below="method.")


def _options_field(name: str) -> str:
    """The field of a method's options in the document, such as promptTuning."""
    return to_camel(module_name(METHODS[name]))


_fields: dict[str, Any] = {
    "type": (Literal[tuple(METHODS)], Field("Full", description=describe_choices(METHODS))),
    **{module_name(config): (config | None, None) for config in _CONFIGURABLE.values()},
}
_MethodChoice: Any = create_model("_MethodChoice", __base__=Section, **_fields)


class MethodSpec(_MethodChoice):
    """The weights that are trained, and how."""

    if TYPE_CHECKING:
        type: str

    freeze: FreezeConfig | None = None
    unfreeze: UnfreezeConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        *(_requires_method(name, _options_field(name)) for name in _CONFIGURABLE),
        _requires_method("Full", "freeze"),
        _requires_method("Full", "unfreeze"),
    )

    @property
    def config(self) -> MethodConfig:
        """The options of the chosen method; the defaults if the document sets none."""
        config_class = METHODS[self.type]
        options: MethodConfig | None = getattr(self, module_name(config_class), None)
        return options or config_class()
