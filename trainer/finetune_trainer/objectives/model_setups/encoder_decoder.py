"""Encoder-decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForSeq2SeqLM

from finetune_trainer.data.loading.collate import IGNORE_INDEX
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import ModelSetup, unwrap_model
from finetune_trainer.protocol.outcome import ConfigurationError


@dataclass(kw_only=True)
class EncoderDecoderSetup(ModelSetup):
    """An encoder-decoder that generates text."""

    eos_token_id: int
    pipeline_task: str = "text2text-generation"
    auto_class: Any = AutoModelForSeq2SeqLM
    peft_task_type: str | None = "SEQ_2_SEQ_LM"

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that defines no first token of the decoder."""
        try:
            decoder_input_ids(model, torch.tensor([[self.eos_token_id]]))
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigurationError(
                "spec.model.config.decoder_start_token_id: the model's configuration does not say which token a text that it "
                "writes begins with: set it, often to the number of the padding token"
            ) from error


def decoder_input_ids(model: Any, labels: torch.Tensor) -> torch.Tensor:
    """The decoder's input for the labels [sequences, tokens], as transformers makes it from them."""
    module = unwrap_model(model)
    shift = getattr(module, "prepare_decoder_input_ids_from_labels", None)
    if shift:
        shifted: torch.Tensor = shift(labels=labels)
        return shifted
    # Families without it, such as NLLB, shift only within their own loss.
    config = module.config
    shifted = functional.pad(labels[:, :-1], (1, 0), value=config.decoder_start_token_id)
    return shifted.masked_fill(shifted == IGNORE_INDEX, config.pad_token_id)
