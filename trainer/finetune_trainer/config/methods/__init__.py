"""Which weights move: each method's options in a file of its own, and the document's section that chooses one."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section, described, only_with
from finetune_trainer.config.methods.base import MethodConfig
from finetune_trainer.config.methods.bottleneck import BottleneckConfig
from finetune_trainer.config.methods.freezing import FreezeConfig, UnfreezeConfig
from finetune_trainer.config.methods.full import FullConfig
from finetune_trainer.config.methods.ia3 import IA3Config
from finetune_trainer.config.methods.lora import LoRAConfig
from finetune_trainer.config.methods.prompt_tuning import PromptTuningConfig

__all__ = [
    "ADAPTING",
    "INSEPARABLE",
    "METHODS",
    "UNMERGEABLE",
    "UNPACKABLE",
    "BottleneckConfig",
    "FreezeConfig",
    "FullConfig",
    "IA3Config",
    "LoRAConfig",
    "MethodConfig",
    "MethodSpec",
    "PromptTuningConfig",
    "UnfreezeConfig",
]  # fmt: skip

METHODS: dict[str, type[MethodConfig]] = {
    "Full": FullConfig,
    "LoRA": LoRAConfig,
    "IA3": IA3Config,
    "Bottleneck": BottleneckConfig,
    "PromptTuning": PromptTuningConfig,
}
"""Each method's options by the method's name in the document."""
ADAPTING = [name for name, options in METHODS.items() if options.adapts]
UNMERGEABLE = [name for name, options in METHODS.items() if not options.mergeable]
INSEPARABLE = [name for name, options in METHODS.items() if not options.separable]
UNPACKABLE = [name for name, options in METHODS.items() if not options.packable]


_only_with = partial(only_with, kind="method", below="method.")


class MethodSpec(Section):
    """Which weights may move."""

    type: Literal["Full", "LoRA", "IA3", "Bottleneck", "PromptTuning"] = Field("Full", description=described(METHODS))
    lora: LoRAConfig | None = None
    ia3: IA3Config | None = None
    bottleneck: BottleneckConfig | None = None
    prompt_tuning: PromptTuningConfig | None = None
    freeze: FreezeConfig | None = None
    unfreeze: UnfreezeConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        _only_with("LoRA", "lora"),
        _only_with("IA3", "ia3"),
        _only_with("Bottleneck", "bottleneck"),
        _only_with("PromptTuning", "promptTuning"),
        _only_with("Full", "freeze"),
        _only_with("Full", "unfreeze"),
    )

    @property
    def config(self) -> MethodConfig:
        """The chosen method's options, the defaults if the document gives none."""
        given = {"LoRA": self.lora, "IA3": self.ia3, "Bottleneck": self.bottleneck, "PromptTuning": self.prompt_tuning}
        return given.get(self.type) or METHODS[self.type]()
