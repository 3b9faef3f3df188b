"""The loss of an encoder-decoder: one text is read, another is written (Sutskever et al. 2014, arXiv:1409.3215)."""

from __future__ import annotations

from typing import Any

from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.objectives.losses.from_outputs import TokenLoss
from finetune_trainer.objectives.model_setups.encoder_decoder import decoder_input_ids


class EncoderDecoderLoss(TokenLoss):
    """Cross entropy of each target token from those before it and the whole input.

    The decoder's input is made from the labels by the model itself, as the rule depends on its family.
    """

    def forward(self, model: Any, batch: Batch) -> Any:
        """The model's outputs, without a key-value cache."""
        decoder_inputs = decoder_input_ids(model, batch.targets["labels"])
        return model(**batch.inputs, decoder_input_ids=decoder_inputs, use_cache=False)
