"""Pairs of answers in normal form: what comes before them, and the better and the worse answer."""

from __future__ import annotations

import os
import re
from typing import Any

from finetune_trainer.data.conversations.messages import Message
from finetune_trainer.data.conversations.normalize import (
    ASSISTANT,
    NormalizationError,
    as_turns,
    find_template_inputs,
    read_history,
    read_turn,
    with_system,
)
from finetune_trainer.data.conversations.shapes import TEMPLATE_PARTS, Shape, Values

ANSWERS = ("chosen", "rejected")
ASSISTANT_TURN = "\n\nAssistant:"  # as in the texts of Anthropic's hh-rlhf
LAST_WORD = re.compile(r"\s*\S*\Z")


def normalize_pair(shape: Shape, values: Values) -> dict[str, Any]:
    """`prompt`, `chosen` and `rejected`, all texts or all messages, and what `find_template_inputs` finds.

    Raises NormalizationError for a value that does not fit the shape, and for answers without a prompt or a shared beginning.
    """
    inputs = find_template_inputs(shape, values)
    question = None if shape.question is None else read_turn(shape, values, shape.question)
    chosen, rejected = (read_turn(shape, values, shape.answers[role]) for role in ANSWERS)
    past = read_history(shape, values)
    if not shape.texts_are_turns and not isinstance(question, list) and isinstance(chosen, str) and isinstance(rejected, str):
        _require_text_only(shape, values)
        return dict(zip(("prompt", *ANSWERS), _split_texts(shape, question, chosen, rejected), strict=True))
    parts = _split_messages(shape, question, as_turns(chosen, ASSISTANT), as_turns(rejected, ASSISTANT))
    prompt = with_system(shape, values, [*past, *parts[0]])
    return {"prompt": prompt, "chosen": parts[1], "rejected": parts[2]} | inputs


def _require_text_only(shape: Shape, values: Values) -> None:
    """Raises NormalizationError for a part of the row that only a chat template can write."""
    for part in TEMPLATE_PARTS:
        if column := shape.optional_column(part, values):
            raise NormalizationError(
                column, "is not in the source's first row, whose texts are joined without a chat template: add it there"
            )


def _split_texts(shape: Shape, question: str | None, chosen: str, rejected: str) -> tuple[str, str, str]:
    """The prompt and the answers.

    Without a question the texts share their beginning, up to the assistant's turn or to the last whole word.
    """
    if question is not None:
        return question, chosen, rejected
    shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071  # character by character, as it should
    turn = shared.rfind(ASSISTANT_TURN)
    shared = shared[: turn + len(ASSISTANT_TURN)] if turn >= 0 else LAST_WORD.sub("", shared)
    if not shared:
        raise _no_shared_beginning(shape)
    return shared, chosen[len(shared) :], rejected[len(shared) :]


def _split_messages(
    shape: Shape, question: str | list[Message] | None, chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """What comes before both answers, and the answers, which may be whole conversations."""
    if question is not None and chosen[0]["role"] == rejected[0]["role"] == ASSISTANT:
        return as_turns(question, "user"), chosen, rejected
    count = _count_shared(chosen, rejected)
    shared = chosen[:count]
    if not shared:
        raise _no_shared_beginning(shape)
    if question is not None and not _is_within(question, shared):
        raise NormalizationError(
            shape.question,
            "is not what both answers begin with: correct the row, or set columns.prompt to another column",
        )
    return shared, chosen[count:], rejected[count:]


def _count_shared(chosen: list[Message], rejected: list[Message]) -> int:
    """The number of messages that both conversations begin with; it leaves each an answer if they end with one."""
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    longest = min(len(chosen), len(rejected))
    while count and (count == longest or chosen[count]["role"] != ASSISTANT):
        count -= 1
    return count


def _no_shared_beginning(shape: Shape) -> NormalizationError:
    return NormalizationError(
        shape.answers["chosen"],
        f"and column {shape.answers['rejected']} have no beginning in common, and there is no prompt: name its column in "
        "columns.prompt",
    )


def _is_within(question: str | list[Message], shared: list[Message]) -> bool:
    if isinstance(question, list):
        return shared[: len(question)] == question
    return any((message["content"] or "").strip() == question.strip() for message in shared)
