"""Samples in words: the tokens that are trained on, in the text that they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from finetune_trainer.data.loading.collate import IGNORE_INDEX
from finetune_trainer.models.tokenizer_training import train_tokenizer
from finetune_trainer.objectives.description import Segment, decode, token_segments

TEXT = "the quick brown fox is unhappy: naïve 日本語 🦊"


def byte_level() -> Any:
    return train_tokenizer([TEXT], 300)


def word_pieces() -> Any:
    names = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "un", "##happy", "is"]
    tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        pad_token="[SEP]",
    )


def sentence_pieces() -> Any:
    names = ["<unk>", "</s>", "▁the", "▁fox", "▁is", "▁un", "happy"]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def test_segments_add_up_to_the_text() -> None:
    tokenizer = byte_level()
    tokens = np.array(tokenizer(TEXT)["input_ids"])
    labels = np.where(np.arange(len(tokens)) % 7 < 3, tokens, IGNORE_INDEX)
    segments = token_segments(tokens, labels, tokenizer)
    assert [segment.trained for segment in segments[:4]] == [True, False, True, False]
    ascii_part = "the quick brown fox is unhappy: na"
    assert "".join(segment.text for segment in segments).startswith(ascii_part)
    assert "".join(segment.text for segment in token_segments(tokens, tokens, tokenizer)) == TEXT


@pytest.mark.parametrize(
    ("tokenizer", "tokens", "texts"),
    [
        (word_pieces(), [[4, 5], [8, 6], [7]], ["the fox", " is un", "happy"]),
        (sentence_pieces(), [[2, 3], [4, 5], [6]], ["the fox", " is un", "happy"]),
    ],
    ids=["WordPiece", "SentencePiece"],
)
def test_blanks_between_segments_are_kept(tokenizer: Any, tokens: list[list[int]], texts: list[str]) -> None:
    before: list[int] = []
    for part, text in zip(tokens, texts, strict=True):
        assert decode(np.array(part), tokenizer, before) == text
        before += part


def test_hidden_tokens_show_what_is_predicted() -> None:
    tokenizer = word_pieces()
    tokens = np.array([1, 4, 3, 3, 8, 2])
    labels = np.array([IGNORE_INDEX, IGNORE_INDEX, 6, 7, 8, IGNORE_INDEX])
    assert token_segments(tokens, labels, tokenizer) == [
        Segment(text="[CLS]", tokens=[1], special=True),
        Segment(text=" the", tokens=[4]),
        Segment(text=" [MASK] [MASK]", tokens=[3, 3], trained=True, special=True, target="unhappy", target_tokens=[6, 7]),
        Segment(text=" is", tokens=[8], trained=True),
        Segment(text=" [SEP]", tokens=[2], special=True),
    ]


def test_named_labels_stand_at_single_tokens() -> None:
    segments = token_segments(np.array([4, 5, 8]), np.array([0, 1, IGNORE_INDEX]), word_pieces(), ["O", "B-ANIMAL"].__getitem__)
    assert [(segment.text, segment.target) for segment in segments] == [("the", "O"), (" fox", "B-ANIMAL"), (" is", None)]


def test_without_labels_nothing_is_trained_on() -> None:
    assert token_segments(np.array([4, 5]), None, word_pieces()) == [Segment(text="the fox", tokens=[4, 5])]
