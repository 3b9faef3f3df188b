"""Methods by the name they have in the document. One file each; a new one is a function and a line in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from finetune_trainer.config import TrainSpec
from finetune_trainer.methods import bottleneck, full, ia3, lora, prompt_tuning
from finetune_trainer.objectives import Objective

METHODS: dict[str, Callable[[Any, TrainSpec, Objective], Any]] = {
    "Full": full.apply, "LoRA": lora.apply, "IA3": ia3.apply, "Bottleneck": bottleneck.apply,
    "PromptTuning": prompt_tuning.apply,
}  # fmt: skip


def apply(model: Any, spec: TrainSpec, objective: Objective) -> Any:
    """The model as the document's method trains it: what may not move is frozen, adapters are beside it.

    Raises ConfigurationError for what the method cannot do with this model.
    """
    # An adapter's random half must agree between ranks and runs, whatever was drawn before.
    torch.manual_seed(spec.training.seed)
    return METHODS[spec.method.type](model, spec, objective)
