"""What objectives for encoder-decoders share: one text is read, another is written (Sutskever et al. 2014, arXiv:1409.3215)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate, pad_to_shape, padded_length
from finetune_trainer.data.loading.dataset import TOKENS, Tokens
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import BatchStatistics, Objective
from finetune_trainer.objectives.forward import forward, unwrap_model
from finetune_trainer.objectives.losses.cross_entropy import guesses, perplexity, summed_cross_entropy
from finetune_trainer.objectives.tokenization import ended, require_eos_token
from finetune_trainer.protocol.outcome import ConfigurationError


class EncoderDecoder(Objective):
    """Cross entropy, in float32, of each token of the target from those before it and the whole input.

    A batch has `input_ids` and `attention_mask` [sequences, tokens], and `labels` [sequences, tokens of the longest target],
    -100 on padding. What the decoder reads is made of the labels by the model itself, whose family knows how.
    """

    task: ClassVar[str] = "text2text-generation"
    auto_class: ClassVar[Any] = AutoModelForSeq2SeqLM
    adapter_task: ClassVar[str | None] = "SEQ_2_SEQ_LM"

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        require_eos_token(processor)

    def start(self, model: Any, world: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that does not know what a text to write begins with."""
        try:
            shifted(model, torch.tensor([[self.processor.eos_token_id]]))
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigurationError(
                "spec.model.config.decoder_start_token_id: the model's configuration does not say which token a text that it "
                "writes begins with: set it, often to the number of the padding token"
            ) from error

    def count(self, batch: Batch) -> Sequence[int]:
        """Tokens of the targets."""
        return [int((batch["labels"] != IGNORE_INDEX).sum())]

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed cross entropy of `model` on the batch."""
        return _loss_sum(_logits(model, batch), batch, self.spec.training.label_smoothing)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """The loss without smoothing. Statistics: tokens that are the likeliest where they stand, and all."""
        logits, labels = _logits(model, batch), batch["labels"]
        return BatchStatistics(_loss_sum(logits, batch), guesses(logits, labels).cpu())

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Loss, perplexity, and the share of tokens that are the likeliest where they stand."""
        guessed, tokens = statistics
        return {"loss": losses[0], "tokenAccuracy": float(guessed / max(tokens, 1))} | perplexity(losses[0])

    def _target(self, tokens: Tokens) -> Tokens:
        """The tokens to write: one end-of-text token ends them, and none begins them, as writing would end with it."""
        eos = self.processor.eos_token_id
        tokens = tokens[1:] if len(tokens) and tokens[0] == eos else tokens
        # mBART has its language after the end.
        return tokens if eos in tokens[-2:] else ended(tokens, eos)

    def _batch(self, inputs: Sequence[Tokens], targets: Sequence[Tokens], layout: Layout) -> Batch:
        """Both padded at the right."""
        batch = collate([{TOKENS: tokens} for tokens in inputs], self.processor.pad_token_id, layout)
        longest = padded_length(max(map(len, targets), default=1))
        return batch | {"labels": pad_to_shape(targets, (len(batch[TOKENS]), longest), IGNORE_INDEX)}


def shifted(model: Any, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to write the labels [sequences, tokens], as transformers makes it of them."""
    module = unwrap_model(model)
    of_family = getattr(module, "prepare_decoder_input_ids_from_labels", None)
    if of_family:
        read: torch.Tensor = of_family(labels=labels)
        return read
    # Families without it, such as NLLB, shift only within their own loss.
    config = module.config
    read = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=config.decoder_start_token_id)
    return read.masked_fill(read == IGNORE_INDEX, config.pad_token_id)


def _logits(model: Any, batch: Batch) -> torch.Tensor:
    inputs = batch | {"decoder_input_ids": shifted(model, batch["labels"])}
    logits: torch.Tensor = forward(model, inputs, use_cache=False).logits
    return logits


def _loss_sum(logits: torch.Tensor, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
    return summed_cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), smoothing)[None]
