"""Rows of a known shape in normal form: the values of an objective's roles."""

from __future__ import annotations

from typing import Any

from finetune_trainer.data.conversations.messages import Message, as_messages
from finetune_trainer.data.conversations.shapes import Shape, Values
from finetune_trainer.data.conversations.tools import parse_tools
from finetune_trainer.data.records.columns import shown

ASSISTANT, USER, SYSTEM = "assistant", "user", "system"


class NormalizationError(ValueError):
    """A value cannot be brought into normal form; the text names its column, the problem and the remedy."""

    def __init__(self, column: str | None, problem: object) -> None:
        super().__init__(f"column {shown(str(column))} {problem}")


def normalize_conversation(shape: Shape, values: Values) -> dict[str, Any]:
    """`messages`, or `prompt` and `completion`, each a text or messages, and what `find_template_inputs` finds.

    Raises NormalizationError for a value that does not fit the shape.
    """
    inputs = find_template_inputs(shape, values)
    if not shape.answers:
        return {"messages": with_system(shape, values, read_messages(shape, values, shape.question))} | inputs
    question, past = read_turn(shape, values, shape.question), read_history(shape, values)
    answer = read_turn(shape, values, shape.answers["completion"])
    if past:
        turns = [*past, *as_turns(question, USER), *as_turns(answer, ASSISTANT)]
        return {"messages": with_system(shape, values, turns)} | inputs
    return {"prompt": with_instructions(shape, values, question), "completion": answer} | inputs


def find_template_inputs(shape: Shape, values: Values) -> dict[str, Any]:
    """The other inputs of the chat template that a row has, by role: `tools` and `template_options`."""
    inputs: dict[str, Any] = {}
    if column := shape.optional_column("tools", values):
        try:
            inputs["tools"] = parse_tools(values[column])
        except ValueError as error:
            raise NormalizationError(column, error) from error
    if column := shape.optional_column("template_options", values):
        inputs["template_options"] = values[column]
    return {role: value for role, value in inputs.items() if value}


def read_messages(shape: Shape, values: Values, column: str | None) -> list[Message]:
    """The messages of a column: a list, JSON of a list, or one message."""
    value = values[str(column)]
    try:
        return shape.parser.parse_all(value)
    except ValueError as error:
        raise NormalizationError(column, error) from error


def read_turn(shape: Shape, values: Values, column: str | None) -> str | list[Message]:
    """A column that holds messages, or a text, which the text of the input's column follows after a blank line."""
    value = values[str(column)]
    if isinstance(value, list | dict) or (shape.preset in ("Messages", "ShareGPT") and as_messages(value)):
        return read_messages(shape, values, column)
    if value is None and column in shape.answers.values():
        return ""  # an answer that is missing, as CSV writes it
    text = _text(value, column)
    addition = shape.optional_column("input", values) if column == shape.question else None
    if addition is None:
        return text
    return "\n\n".join(part for part in (text, _text(values[addition], addition)) if part)


def read_history(shape: Shape, values: Values) -> list[Message]:
    """The turns of the history's column: pairs of a question and its answer."""
    column = shape.optional_column("history", values)
    turns: list[Message] = []
    pairs = values[column] if column else []
    if not isinstance(pairs, list):
        raise NormalizationError(column, f"is a {type(pairs).__name__}, not a list of pairs: correct the row")
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise NormalizationError(column, f"has in item {number} no pair of a question and its answer: correct the row")
        turns += [*as_turns(pair[0], USER), *as_turns(pair[1], ASSISTANT)]
    return turns


def as_turns(turn: str | list[Message], role: str) -> list[Message]:
    """The messages of a turn; a text is one message of the role."""
    return turn if isinstance(turn, list) else [{"role": role, "content": turn}]


def with_instructions(shape: Shape, values: Values, turn: str | list[Message]) -> str | list[Message]:
    """The turn after the row's system message, for which a text becomes a message of the user."""
    if isinstance(turn, str) and not system_text(shape, values):
        return turn
    return with_system(shape, values, as_turns(turn, USER))


def with_system(shape: Shape, values: Values, messages: list[Message]) -> list[Message]:
    """The messages after the system message of the row's column, if there is one."""
    text = system_text(shape, values)
    if not text:
        return messages
    if messages and messages[0]["role"] == SYSTEM:
        if messages[0]["content"].strip() == text.strip():
            return messages
        raise NormalizationError(
            shape.optional_column("system", values), "holds another system message than the conversation: keep one of them"
        )
    return [{"role": SYSTEM, "content": text}, *messages]


def system_text(shape: Shape, values: Values) -> str:
    """The text of the row's column of the system message, empty for none."""
    column = shape.optional_column("system", values)
    text = "" if column is None else _text(values[column], column)
    return text if text.strip() else ""


def _text(value: Any, column: str | None) -> str:
    if not isinstance(value, str):
        kind = "null" if value is None else f"a {type(value).__name__}"
        raise NormalizationError(column, f"is {kind}, not a string: correct or remove the row")
    return value
