"""Counts of tokens that are trained on, and of special tokens."""

from __future__ import annotations

from tests.support import tiny

from finetune_trainer.objectives.description import Block, Segment
from finetune_trainer.preview.report import SpecialToken
from finetune_trainer.preview.tokens import count_tokens


def test_counts_what_is_seen_and_what_is_predicted() -> None:
    tokenizer = tiny.tokenizer()  # w0 is its end-of-text and its padding token
    tokenizer.add_tokens(["<|end|>", "<|unused|>"])  # not called special
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    read = Segment(text="w5 w6", tokens=[5, 6])
    hidden = Segment(text="w0", tokens=[0], trained=True, special=True, target="w7", target_tokens=[7])
    answer = Segment(text="w8 <|end|>", tokens=[8, end], trained=True)
    counted = count_tokens([[Block(name="a", segments=[read, hidden])], [Block(name="b", segments=[answer])]], tokenizer)
    assert counted is not None
    assert (counted.sequences, counted.tokens, counted.trained) == (2, 5, 3)
    assert counted.special_tokens == [
        SpecialToken(token="w0", id=0, names=["eos", "pad"], count=1, trained=0),
        SpecialToken(token="<|end|>", id=end, names=[], count=1, trained=1),
    ]


def test_an_image_processor_has_no_tokens() -> None:
    assert count_tokens([], object()) is None
