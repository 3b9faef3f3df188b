"""Gradual unfreezing from the top down (ULMFiT, Howard & Ruder 2018, arXiv:1801.06146).

A weight that is still frozen has a gradient of zero, so it does not count in the gradient norm, and the optimizer skips it: it
neither moves nor decays, and its optimizer state begins when it is unfrozen. Which weights are frozen is a function of the step
alone. All weights have requires_grad from the start, because DeepSpeed partitions the trainable weights once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from finetune_trainer.config import UnfreezeConfig
from finetune_trainer.methods.components.layer_depth import measure_layer_depths


class GradualUnfreezing:
    """Freezes the weights below a depth that falls with the steps. The engine's parameter groups must have a `depth`."""

    def __init__(self, engine: Any, config: UnfreezeConfig) -> None:
        depths = measure_layer_depths(engine.module, "spec.method.unfreeze")
        self._config, self._head_depth = config, depths.head
        self._step, self._lowest_depth = 1, depths.head
        self._initialized: set[torch.Tensor] = set()
        self._frozen_gradients: dict[torch.Tensor, torch.Tensor] = {}
        for parameter, depth in depths.by_parameter.items():
            if parameter.requires_grad:
                parameter.register_hook(partial(self._mask_gradient, depth))  # type: ignore[no-untyped-call]  # untyped in torch
        engine.basic_optimizer.register_step_pre_hook(lambda optimizer, *_: self._remove_frozen_gradients(optimizer))
        engine.basic_optimizer.register_step_post_hook(lambda *_: self._restore_frozen_gradients())

    def begin_step(self, step: int) -> None:
        """Must be called before the first backward pass of a step, counted from 1."""
        self._step = step
        self._lowest_depth = lowest_trained_depth(self._config, step, self._head_depth)

    def _mask_gradient(self, depth: int, gradient: torch.Tensor) -> torch.Tensor | None:
        return torch.zeros_like(gradient) if depth < self._lowest_depth else None

    def _remove_frozen_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        # The parameters of the groups are DeepSpeed's flat ones; at stage 3 only one group has any at a time.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter not in self._initialized:
                    self._initialize_state(parameter, optimizer.state[parameter], group["depth"])
                if group["depth"] < self._lowest_depth and parameter.grad is not None:
                    self._frozen_gradients[parameter], parameter.grad = parameter.grad, None

    def _restore_frozen_gradients(self) -> None:
        # An offloaded optimizer reuses the memory of the gradients.
        for parameter, gradient in self._frozen_gradients.items():
            parameter.grad = gradient
        self._frozen_gradients.clear()

    def _initialize_state(self, parameter: torch.Tensor, state: dict[str, torch.Tensor], depth: int) -> None:
        """Set the optimizer state of a parameter before its first step in this process.

        The moments are AdamW's initial ones unless they were restored: DeepSpeed can convert a checkpoint only if every
        parameter has a state. The step count is computed, because at stage 3 DeepSpeed restores the same one for all.
        """
        self._initialized.add(parameter)
        for moment in ("exp_avg", "exp_avg_sq"):
            state.setdefault(moment, torch.zeros_like(parameter))
        steps_taken = max(0, self._step - 1 - (self._head_depth - depth) * self._config.every_steps)
        state["step"] = torch.tensor(float(steps_taken), device=parameter.device)


def build_unfreezing(engine: Any, config: UnfreezeConfig | None) -> GradualUnfreezing | None:
    """The gradual unfreezing that the document asks for, if any."""
    return GradualUnfreezing(engine, config) if config else None


def lowest_trained_depth(config: UnfreezeConfig, step: int, head_depth: int) -> int:
    """The lowest depth at which weights are trained at a step, counted from 1: at first that of the head, at last 0."""
    return max(0, head_depth - (step - 1) // config.every_steps)
