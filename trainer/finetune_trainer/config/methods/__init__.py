"""Which weights move: each method's options in a file of its own, and the document's section that chooses one."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section, described, only_with
from finetune_trainer.config.methods.base import Options
from finetune_trainer.config.methods.bottleneck import Bottleneck
from finetune_trainer.config.methods.freezing import Freeze, Unfreeze
from finetune_trainer.config.methods.full import Full
from finetune_trainer.config.methods.ia3 import IA3
from finetune_trainer.config.methods.lora import LoRA
from finetune_trainer.config.methods.prompt_tuning import PromptTuning

__all__ = [
    "ADAPTING", "IA3", "INSEPARABLE", "METHODS", "UNMERGEABLE", "UNPACKABLE", "Bottleneck", "Freeze", "Full", "LoRA",
    "Method", "Options", "PromptTuning", "Unfreeze",
]  # fmt: skip

METHODS: dict[str, type[Options]] = {
    "Full": Full,
    "LoRA": LoRA,
    "IA3": IA3,
    "Bottleneck": Bottleneck,
    "PromptTuning": PromptTuning,
}
"""Each method's options by the method's name in the document."""
ADAPTING = [name for name, options in METHODS.items() if options.adapts]
UNMERGEABLE = [name for name, options in METHODS.items() if not options.mergeable]
INSEPARABLE = [name for name, options in METHODS.items() if not options.separable]
UNPACKABLE = [name for name, options in METHODS.items() if not options.packable]


_only_with = partial(only_with, kind="method", below="method.")


class Method(Section):
    """Which weights may move."""

    type: Literal["Full", "LoRA", "IA3", "Bottleneck", "PromptTuning"] = Field("Full", description=described(METHODS))
    lora: LoRA | None = None
    ia3: IA3 | None = None
    bottleneck: Bottleneck | None = None
    prompt_tuning: PromptTuning | None = None
    freeze: Freeze | None = None
    unfreeze: Unfreeze | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        _only_with("LoRA", "lora"),
        _only_with("IA3", "ia3"),
        _only_with("Bottleneck", "bottleneck"),
        _only_with("PromptTuning", "promptTuning"),
        _only_with("Full", "freeze"),
        _only_with("Full", "unfreeze"),
    )

    @property
    def options(self) -> Options:
        """The chosen method's options, the defaults if the document gives none."""
        given = {"LoRA": self.lora, "IA3": self.ia3, "Bottleneck": self.bottleneck, "PromptTuning": self.prompt_tuning}
        return given.get(self.type) or METHODS[self.type]()
