"""The interface of a fine-tuning method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from finetune_trainer.config.methods.base import MethodConfig
from finetune_trainer.config.methods.lora import AdapterConfig
from finetune_trainer.objectives import Objective

ConfigT = TypeVar("ConfigT", bound=MethodConfig)
FetchAdapter = Callable[[AdapterConfig, str], Path]
"""Returns the local folder of an adapter; the second argument is the field of its source, for error messages."""


@dataclass(frozen=True)
class MethodContext:
    """What a method needs from the run in addition to its options."""

    objective: Objective
    seed: int
    fetch_adapter: FetchAdapter


class Method(ABC, Generic[ConfigT]):
    """A way to train a model. Each subclass is defined in a separate file and named as in the document."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def require_libraries(self) -> None:  # most methods need no further library
        """Raise ConfigurationError if a library that the options need is not installed; called before anything is loaded."""

    @abstractmethod
    def apply(self, model: Any, context: MethodContext) -> Any:
        """Return the model to train, with the weights that are not trained frozen.

        Raises ConfigurationError if the method cannot be applied to this model.
        """
