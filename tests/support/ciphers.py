"""Translation models with hand-made weights: BARTs that replace each word by its translation in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
POSITIONS = 24
Dictionary = Mapping[str, Mapping[str, float]]


def save(folder: Path, words: Sequence[str], dictionary: Dictionary, sharpness: float = 4.0) -> str:
    """Save a model and a tokenizer for texts of these words; returns the URI of the folder.

    A word's translations have weights, of which the largest is 1; words without a translation are kept. With a higher sharpness
    the most likely translation is sampled more often.
    """
    vocabulary = [PADDING, END, UNKNOWN, *words]
    tokenizer(vocabulary).save_pretrained(folder)
    model(vocabulary, dictionary, sharpness).save_pretrained(folder)
    return f"file://{folder}"


def tokenizer(vocabulary: Sequence[str]) -> Any:
    """Splits texts at blanks and appends an end-of-text token."""
    known = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    known.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    known.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=known, pad_token=PADDING, eos_token=END, unk_token=UNKNOWN)


def model(vocabulary: Sequence[str], dictionary: Dictionary, sharpness: float) -> Any:
    """At each position the decoder attends to the encoder's word at that position and generates its translation.

    Each dimension is a word or a position; all other weights are zero.
    """
    words = len(vocabulary)
    width = words + POSITIONS
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=words, d_model=width, max_position_embeddings=POSITIONS, encoder_layers=0, decoder_layers=1,
            encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=1, decoder_ffn_dim=1, dropout=0.0,
            pad_token_id=0, eos_token_id=1, bos_token_id=None, decoder_start_token_id=1, forced_eos_token_id=None,
        )
    ).eval()  # fmt: skip
    weights = bart.model
    layer = weights.decoder.layers[0]
    one_each = torch.eye(width)
    with torch.no_grad():
        for module in (layer.self_attn.out_proj, layer.fc2, *layer.encoder_attn.children()):
            module.weight.zero_()
            module.bias.zero_()
        weights.shared.weight.copy_(one_each[:words])
        for side in (weights.encoder, weights.decoder):
            side.embed_positions.weight[-POSITIONS:] = one_each[words:]
        look = layer.encoder_attn
        look.q_proj.weight[words:, words:] = 30 * torch.eye(POSITIONS)
        look.k_proj.weight[words:, words:] = 30 * torch.eye(POSITIONS)
        look.v_proj.weight.copy_(one_each)
        for number, word in enumerate(vocabulary):
            for other, weight in dictionary.get(word, {word: 1.0}).items():
                look.out_proj.weight[vocabulary.index(other), number] = 30 * weight
        layer.final_layer_norm.weight.fill_(sharpness)
    return bart
