"""The base class of every method's options: what a method requires of the rest of the document."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.base import Section


class MethodConfig(Section):
    """Base class of a method's options. The first line of a subclass's docstring describes the method in the reference."""

    trains_adapter: ClassVar[bool] = True
    """Whether it adds a few new weights to a frozen model, which must then be pretrained."""
    supports_merging: ClassVar[bool] = True
    """Whether the trained weights can be merged into the model's."""
    supports_adapter_export: ClassVar[bool] = True
    """Whether the trained weights can be exported without the model's."""
    supports_packing: ClassVar[bool] = True
    """Whether it can train on sequences that hold several examples."""

    @property
    def prefix_length(self) -> int:
        """The number of positions it occupies before each text."""
        return 0
