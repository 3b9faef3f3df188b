"""Gradual unfreezing from the top down (ULMFiT, Howard & Ruder 2018, arXiv:1801.06146).

A weight whose turn has not come is as if it were frozen: its gradient is zero, so that the norm of all gradients is without it,
and the optimizer leaves it out, so that it neither moves nor decays and its first step is its first. Which weights these are is
a function of the step alone. They stay trainable for DeepSpeed, which fixes at the start what it partitions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from finetune_trainer.config import TrainSpec, UnfreezeConfig
from finetune_trainer.methods import layer_depth


def lowest_depth(unfreeze: UnfreezeConfig, step: int, head: int) -> int:
    """The lowest depth whose weights are trained at a step, counted from 1: the head's depth at first, 0 in the end."""
    return max(0, head - (step - 1) // unfreeze.every_steps)


class Unfreezing:
    """Holds back the weights of an engine whose parameter groups know their depth."""

    def __init__(self, engine: Any, settings: UnfreezeConfig) -> None:
        depths = layer_depth.measure(engine.module, "spec.method.unfreeze")
        self._settings, self._head = settings, depths.head
        self._step, self._lowest = 1, depths.head
        self._counted: set[torch.Tensor] = set()
        self._aside: dict[torch.Tensor, torch.Tensor] = {}
        for parameter, deep in depths.of.items():
            if parameter.requires_grad:
                parameter.register_hook(partial(self._masked, deep))  # type: ignore[no-untyped-call]  # torch leaves it untyped
        engine.basic_optimizer.register_step_pre_hook(lambda optimizer, *_: self._leave_out(optimizer))
        engine.basic_optimizer.register_step_post_hook(lambda *_: self._give_back())

    def begin(self, step: int) -> None:
        """Before the first backward pass of a step, counted from 1."""
        self._step, self._lowest = step, lowest_depth(self._settings, step, self._head)

    def _masked(self, deep: int, gradient: torch.Tensor) -> torch.Tensor | None:
        return torch.zeros_like(gradient) if deep < self._lowest else None

    def _leave_out(self, optimizer: torch.optim.Optimizer) -> None:
        # DeepSpeed has put its own flat parameters into the groups, at stage 3 those of one group at a time.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter not in self._counted:
                    self._count(parameter, optimizer.state[parameter], group["depth"])
                if group["depth"] < self._lowest and parameter.grad is not None:
                    self._aside[parameter], parameter.grad = parameter.grad, None

    def _give_back(self) -> None:
        # Where the optimizer is offloaded, the gradients' memory is used again.
        for parameter, gradient in self._aside.items():
            parameter.grad = gradient
        self._aside.clear()

    def _count(self, parameter: torch.Tensor, state: dict[str, torch.Tensor], deep: int) -> None:
        """Before a parameter's first step in this life: its state as AdamW would begin it, and how many steps it has taken.

        DeepSpeed can convert a checkpoint only if every parameter has a state, and at stage 3 it gives all the same count.
        """
        self._counted.add(parameter)
        for moment in ("exp_avg", "exp_avg_sq"):
            state.setdefault(moment, torch.zeros_like(parameter))
        taken = max(0, self._step - 1 - (self._head - deep) * self._settings.every_steps)
        state["step"] = torch.tensor(float(taken), device=parameter.device)


def gradually(spec: TrainSpec, engine: Any) -> Unfreezing | None:
    """What the document asks for, if it does."""
    return Unfreezing(engine, spec.method.unfreeze) if spec.method.unfreeze else None
