"""What every method's options say beside its fields: what it asks of the rest of the document."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.config.base import Section


class MethodConfig(Section):
    """Base of every method's options. The first sentence of a class's docstring is what the reference says of the method."""

    adapts: ClassVar[bool] = True
    """Whether it trains few new weights beside frozen ones, which then must have been learnt before."""
    mergeable: ClassVar[bool] = True
    """Whether what was trained can be added into the weights."""
    separable: ClassVar[bool] = True
    """Whether what was trained can be stored without the weights."""
    packable: ClassVar[bool] = True
    """Whether it learns from sequences that hold several examples."""

    @property
    def prefix(self) -> int:
        """Positions of the model that it takes before each text."""
        return 0
