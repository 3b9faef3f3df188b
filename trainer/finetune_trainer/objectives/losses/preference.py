"""The loss of direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290) and its variants."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from finetune_trainer.config.objectives.preference_tuning import PreferenceTuningConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch
from finetune_trainer.huggingface.pretrained import training_mode
from finetune_trainer.objectives.base import unwrap_model
from finetune_trainer.objectives.losses.cross_entropy import summed_cross_entropy
from finetune_trainer.objectives.losses.from_outputs import BatchLoss, next_token_labels


class ReferenceModel:
    """The model as it started: a copy of it, the model below its adapters, or a uniform model."""

    def __init__(self, config: PreferenceTuningConfig, has_adapters: bool) -> None:
        self.is_uniform = config.reference_free
        self.has_adapters = has_adapters
        self.copy: Any = None

    def capture(self, model: Any, device: torch.device) -> None:
        """Copy the starting model, unless it remains below adapters."""
        if not self.has_adapters and not self.is_uniform:
            self.copy = copy.deepcopy(model).to(device).eval().requires_grad_(False)

    def log_probabilities(self, model: Any, batch: Batch) -> torch.Tensor:
        """Those of the answers, [sequences], without gradients; all ranks call it equally often, as they call the model."""
        labels = batch.targets["labels"]
        if self.is_uniform:
            return torch.zeros(len(labels), device=labels.device)
        with torch.no_grad():
            if self.copy is not None:
                return answer_log_probabilities(self.copy, batch)
            adapted = unwrap_model(model)  # DeepSpeed's engine has no training flag of its model
            with training_mode(adapted, False), adapted.disable_adapter():
                return answer_log_probabilities(model, batch)


class PairRewards(NamedTuple):
    """The pairs of a batch: how much likelier than the reference the model finds each answer."""

    losses: torch.Tensor
    """The loss of each pair, [pairs] float32, 0 where there is none."""
    rewards: torch.Tensor
    """The rewards of the chosen and of the rejected answers, [2, pairs] float32."""


class PreferenceLoss(BatchLoss):
    """A loss of the difference between the rewards of the chosen and the rejected answer.

    A batch has the inputs `input_ids` and `attention_mask` and the targets `labels`, all [2 x pairs, tokens]: the prompts with
    the chosen answers, then those with the rejected ones; labels are -100 except in answers.
    """

    def __init__(self, config: PreferenceTuningConfig, reference: ReferenceModel) -> None:
        self.config = config
        self.reference = reference

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The summed loss of the pairs, [1]."""
        return self.compare(model, batch).losses.sum()[None]

    def compare(self, model: Any, batch: Batch) -> PairRewards:
        """The loss and the rewards of each pair."""
        # The reference comes first, so that nothing is between the model's forward pass and its backward pass.
        reference = self.reference.log_probabilities(model, batch)
        log_ratios = (answer_log_probabilities(model, batch) - reference).reshape(2, -1)
        rewards = self.config.beta * log_ratios
        margin = rewards[0] - rewards[1]
        match self.config.loss:
            case "Sigmoid":
                smoothing = self.config.label_smoothing
                losses = -(1 - smoothing) * functional.logsigmoid(margin) - smoothing * functional.logsigmoid(-margin)
            case "Hinge":
                losses = functional.relu(1 - margin)
            case "IPO":
                # Ratios are averaged over an answer's tokens: with their sum, long answers would be pulled harder.
                answer_lengths = is_answer_token(batch).sum(1).clamp(min=1).reshape(2, -1)
                means = log_ratios / answer_lengths
                losses = (means[0] - means[1] - 1 / (2 * self.config.beta)).square()
        return PairRewards(losses.where(is_pair(batch), 0.0), rewards)


def answer_log_probabilities(model: Any, batch: Batch) -> torch.Tensor:
    """The log probability of each sequence's answer, given the tokens before it: [sequences] float32."""
    logits = model(**batch.inputs, use_cache=False).logits
    sums = []
    for scores, labels in zip(logits.unbind(), next_token_labels(batch.targets["labels"]).unbind(), strict=True):
        sums.append(summed_cross_entropy(scores, labels))
    return -torch.stack(sums)


def is_answer_token(batch: Batch) -> torch.Tensor:
    """The positions that predict a token of an answer, [sequences, tokens] bool."""
    return next_token_labels(batch.targets["labels"]) != IGNORE_INDEX


def is_pair(batch: Batch) -> torch.Tensor:
    """The pairs that have answers, [pairs] bool: a batch without rows has one pair without any."""
    return is_answer_token(batch).any(1).reshape(2, -1).all(0)
