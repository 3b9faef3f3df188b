"""Windows of a context, and the answer within them: the example of a question."""

from __future__ import annotations

import numpy as np
import torch

from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.records.answers import Answer
from finetune_trainer.objectives.inputs.tokenization import SEGMENTS

WINDOWS = "windows"  # the number of tokens of each window
BEGINS, ENDS = "begins", "ends"  # of each token: its characters in the context, OUTSIDE for other tokens
TARGET = "target"  # of each window: the answer's first token and its last
OUTSIDE = -1


def find_summary_token(tokens: torch.Tensor, cls_token_id: int | None) -> torch.Tensor:
    """The position of the token that summarizes each window of `tokens` [windows, tokens]; 0 if there is none."""
    return (tokens == (-1 if cls_token_id is None else cls_token_id)).int().argmax(1)


def answer_tokens(offsets: Tokens, answer: Answer | None) -> tuple[int, int] | None:
    """The first and last token of the answer in a window whose tokens have these `offsets` [tokens, 2].

    None for no answer, and for one that is not completely in the window.
    """
    context_tokens = np.flatnonzero(offsets[:, 0] != OUTSIDE)
    if answer is None or not len(context_tokens):
        return None
    begin, end = answer.start, answer.start + len(answer.text)
    if begin < offsets[context_tokens[0], 0] or end > offsets[context_tokens[-1], 1]:
        return None
    in_answer = context_tokens[(offsets[context_tokens, 1] > begin) & (offsets[context_tokens, 0] < end)]
    return (int(in_answer[0]), int(in_answer[-1])) if len(in_answer) else None


def split_windows(sample: Sample) -> list[Sample]:
    """The windows of an example, each with its part of the fields that have a number for each token."""
    names = (TOKENS, SEGMENTS, BEGINS, ENDS)
    ends = np.cumsum(sample[WINDOWS])[:-1]
    columns = [np.split(sample[name], ends) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
