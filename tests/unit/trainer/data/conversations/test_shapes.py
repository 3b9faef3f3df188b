"""Conversations of every usual shape in normal form, and the sentences about rows that do not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_trainer.config.conversation import ConversationConfig
from finetune_trainer.config.data import ColumnsConfig
from finetune_trainer.data.conversations.reader import ConversationReader
from finetune_trainer.data.conversations.shapes import ShapeFinder
from finetune_trainer.data.records.record import Record
from finetune_trainer.data.records.row import Row
from finetune_trainer.protocol.outcome import DataError

USER, YES, NO = (
    {"role": "user", "content": "May I?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "assistant", "content": "No."},
)
SYSTEM = {"role": "system", "content": "Be brief."}
MESSAGES = {"messages": [USER, YES]}
HUMAN, GPT = {"from": "human", "value": "May I?"}, {"from": "gpt", "value": "Yes."}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}


def reader(pairs: bool = False, columns: Any = None, **conversation: Any) -> ConversationReader:
    settings = ConversationConfig.model_validate(conversation)
    return ConversationReader(
        ShapeFinder(ColumnsConfig.model_validate(columns or {}), settings, "pair" if pairs else "completion")
    )


def rows(given: ConversationReader, *values: dict[str, Any]) -> list[Row]:
    return list(given.rows(Record(value, f"rows.jsonl:{line}") for line, value in enumerate(values, start=1)))


def preset(given: ConversationReader, values: dict[str, Any]) -> str:
    return given.find_shape(Record(values, "rows.jsonl:1")).preset


CONVERSATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Messages", {"messages": [USER, YES]}, {"messages": [USER, YES]}),
    ("Messages", {"conversation": [USER, YES]}, {"messages": [USER, YES]}),
    ("Messages", {"conversations": ["May I?", "Yes."]}, {"messages": [USER, YES]}),
    (
        "Messages",
        {"messages": {"role": ["user", "assistant"], "content": ["May I?", "Yes."]}, "system": float("nan")},
        {"messages": [USER, YES]},
    ),
    ("Messages", {"conversation": [{"input": "May I?", "output": "Yes."}]}, {"messages": [USER, YES]}),
    ("Messages", {"messages": json.dumps([USER, YES])}, {"messages": [USER, YES]}),
    ("Messages", {"messages": [USER, YES], "system": "Be brief."}, {"messages": [SYSTEM, USER, YES]}),
    ("Messages", {"messages": [SYSTEM, USER, YES], "system": "Be brief."}, {"messages": [SYSTEM, USER, YES]}),
    ("Messages", {"messages": [USER, YES], "tools": [TOOL]}, {"messages": [USER, YES], "tools": [TOOL]}),
    ("Messages", {"messages": [USER, YES], "tools": json.dumps([TOOL["function"]])}, MESSAGES | {"tools": [TOOL]}),
    ("Messages", {"messages": [USER, YES], "tools": "", "system": None}, {"messages": [USER, YES]}),
    ("Messages", {"messages": [USER, YES], "prompt": "May I?"}, {"messages": [USER, YES]}),
    ("Messages", {"messages": [USER, YES], "chat_template_kwargs": {"a": 1}}, MESSAGES | {"template_options": {"a": 1}}),
    ("ShareGPT", {"conversations": [HUMAN, GPT]}, {"messages": [USER, YES]}),
    (
        "ShareGPT",
        {"conversations": [HUMAN, {"from": "function_call", "value": json.dumps(CALL["function"])},
                           {"from": "observation", "value": "sunny"}, GPT], "tools": json.dumps([TOOL])},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                      {"role": "tool", "content": "sunny"}, YES], "tools": [TOOL]},
    ),
    ("ShareGPT", {"conversations": [{"from": "system", "value": "Be brief."}, HUMAN, GPT]}, {"messages": [SYSTEM, USER, YES]}),
    ("Alpaca", {"instruction": "May I?", "input": "", "output": "Yes."}, {"prompt": "May I?", "completion": "Yes."}),
    ("Alpaca", {"instruction": "May", "input": "I?", "output": "Yes."}, {"prompt": "May\n\nI?", "completion": "Yes."}),
    ("Alpaca", {"instruction": "May", "context": "I?", "response": "Yes."}, {"prompt": "May\n\nI?", "completion": "Yes."}),
    (
        "Alpaca",
        {"instruction": "May I?", "output": "Yes.", "system": "Be brief."},
        {"prompt": [SYSTEM, USER], "completion": "Yes."},
    ),
    (
        "Alpaca",
        {"instruction": "Why?", "output": "So.", "history": [["May I?", "Yes."]]},
        {"messages": [USER, YES, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]},
    ),
    ("PromptCompletion", {"prompt": "May I?", "completion": "Yes."}, {"prompt": "May I?", "completion": "Yes."}),
    ("PromptCompletion", {"prompt": [USER], "completion": [YES]}, {"prompt": [USER], "completion": [YES]}),
    ("PromptCompletion", {"question": "May I?", "answer": "Yes."}, {"prompt": "May I?", "completion": "Yes."}),
    (
        "PromptCompletion",
        {"system_prompt": "Be brief.", "question": "May I?", "response": "Yes."},
        {"prompt": [SYSTEM, USER], "completion": "Yes."},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "expected"), CONVERSATIONS)
def test_finds_the_shape_of_a_conversation(name: str, values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert preset(reader(), values) == name
    [row] = rows(reader(), values)
    assert row.values == expected


PAIRS: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("PromptCompletion", {"prompt": "a", "chosen": "b", "rejected": "c"}, ["a", "b", "c"]),
    ("Messages", {"prompt": [USER], "chosen": [YES], "rejected": [NO]}, [[USER], [YES], [NO]]),
    ("Messages", {"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]}, [[USER], [YES], [NO]]),
    ("Messages", {"prompt": "May I?", "chosen": [USER, YES], "rejected": [USER, NO]} | MESSAGES, [[USER], [YES], [NO]]),
    ("Messages", {"prompt": "May I?", "chosen": [YES], "rejected": [NO]}, [[USER], [YES], [NO]]),
    ("Messages", {"chosen": [USER, YES], "rejected": [USER, NO]}, [[USER], [YES], [NO]]),
    ("Messages", {"chosen": [USER, YES], "rejected": [USER, YES]}, [[USER], [YES], [YES]]),
    ("Messages", {"chosen_messages": [USER, YES], "rejected_messages": [USER, NO]}, [[USER], [YES], [NO]]),
    ("Messages", {"messages": [USER], "chosen": YES, "rejected": NO}, [[USER], [YES], [NO]]),
    ("Messages", {"messages": [USER], "chosen": YES, "rejected": NO, "system": "Be brief."}, [[SYSTEM, USER], [YES], [NO]]),
    ("ShareGPT", {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No."}}, [[USER], [YES], [NO]]),
    ("Alpaca", {"instruction": "May", "input": "I?", "chosen": "Yes.", "rejected": "No."},
     [[{"role": "user", "content": "May\n\nI?"}], [YES], [NO]]),
    ("PromptCompletion", {"system": "Be brief.", "question": "May I?", "chosen": "Yes.", "rejected": "No."},
     [[SYSTEM, USER], [YES], [NO]]),
    ("PromptCompletion", {"system": "", "question": "May I?", "chosen": "Yes.", "rejected": "No."}, [[USER], [YES], [NO]]),
    ("PromptCompletion", {"chosen": "\n\nHuman: Hi\n\nAssistant: I can", "rejected": "\n\nHuman: Hi\n\nAssistant: I can't"},
     ["\n\nHuman: Hi\n\nAssistant:", " I can", " I can't"]),
    ("PromptCompletion", {"chosen": "Paris is nice", "rejected": "Paris is new"}, ["Paris is", " nice", " new"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values", "expected"), PAIRS)
def test_finds_the_shape_of_a_pair(name: str, values: dict[str, Any], expected: list[Any]) -> None:
    assert preset(reader(pairs=True), values) == name
    [row] = rows(reader(pairs=True), values)
    assert [row.values[role] for role in ("prompt", "chosen", "rejected")] == expected


def test_document_names_the_shape() -> None:
    dialog = {"dialog": [{"who": "pupil", "says": "May I?"}, {"who": "Teacher", "says": "Yes."}], "messages": [NO]}
    named = reader(
        columns={"messages": "dialog"}, roles={"pupil": "user", "Teacher": "assistant"}, roleKey="who", contentKey="says"
    )
    assert rows(named, dialog)[0].values == {"messages": [USER, YES]}
    pair = {"messages": [NO], "q": "May I?", "a": "Yes."}
    named = reader(columns={"prompt": "q", "completion": "a"})
    assert rows(named, pair)[0].values == {"prompt": "May I?", "completion": "Yes."}
    nested = {"a": {"turns": [USER, YES]}, "instruction": "May", "input": "I?", "output": "Yes."}
    assert rows(reader(columns={"messages": "a.turns"}), nested)[0].values == {"messages": [USER, YES]}
    template = reader(columns={"prompt": "{instruction} {input}", "completion": "output"})
    assert rows(template, nested)[0].values == {"prompt": "May I?", "completion": "Yes."}
    both = {"messages": [NO], "instruction": "May I?", "output": "Yes."}
    assert rows(reader(preset="Alpaca"), both)[0].values == {"prompt": "May I?", "completion": "Yes."}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": [{"type": "text", "text": "Y"}, {"type": "text", "text": "es."}]}, {"content": "Yes."}),
        (
            {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}]},
            {"content": "Yes.", "reasoning_content": "Hm."},
        ),
        ({"content": "Yes.", "thinking": "Hm."}, {"content": "Yes.", "reasoning_content": "Hm."}),
        (
            {"content": [{"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Paris"}}]},
            {"content": None, "tool_calls": [CALL | {"id": "1"}]},
        ),
        (
            {"content": "", "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Paris"}'}}]},
            {"content": None, "tool_calls": [CALL]},
        ),
        ({"content": None, "function_call": CALL["function"]}, {"content": None, "tool_calls": [CALL]}),
        ({"content": "Yes.", "weight": 0}, {"content": "Yes.", "weight": 0}),
        ({"content": "Yes.", "train": False}, {"content": "Yes.", "weight": 0}),
        ({"content": "Yes.", "loss_weight": 1.0, "name": None}, {"content": "Yes.", "weight": 1}),
    ],
)
def test_reads_parts_of_a_message(message: dict[str, Any], expected: dict[str, Any]) -> None:
    [row] = rows(reader(), {"messages": [USER, {"role": "assistant"} | message]})
    assert row.values["messages"][1] == {"role": "assistant"} | expected


def test_result_of_a_tool_may_be_an_object() -> None:
    [row] = rows(reader(), {"messages": [USER, {"role": "tool", "content": {"degrees": 20}}, YES]})
    assert row.values["messages"][1]["content"] == '{"degrees": 20}'


def test_missing_answers_are_empty() -> None:
    pairs = rows(reader(), {"prompt": "a", "completion": None}, {"prompt": "a", "completion": "b"})
    assert [row.values["completion"] for row in pairs] == ["", "b"]


def test_address_of_an_image_does_not_matter_to_texts() -> None:
    assert rows(reader(), MESSAGES | {"image": "https://example.org/logo.png", "images": []})[0].values == MESSAGES


def test_rows_may_lack_what_not_every_conversation_has() -> None:
    found = rows(reader(), {"messages": [USER, YES]}, {"messages": [USER, YES], "tools": [TOOL], "system": "Be brief."})
    assert found[1].values == {"messages": [SYSTEM, USER, YES], "tools": [TOOL]}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"text": "a", "id": 1}, "the columns hold no conversation of a known shape (there are: id, text): name those"),
    ({"messages": "Hi"}, "column messages is a str, not a list of messages"),
    ({"messages": None}, "column messages is null, not a list of messages"),
    ({"messages": []}, "column messages is a list without messages"),
    ({"messages": [USER, {"role": "kid", "content": "x"}]}, "column messages has in message 2 the unknown role 'kid'"),
    ({"messages": [USER, {"content": "x"}]}, "column messages has in message 2 no role (it has: content)"),
    ({"messages": [USER, {"role": "assistant"}]}, "column messages has in message 2 no content: add it"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "column messages has in message 1 a content whose "
     "part 1 is of type image_url, and conversations are trained on as text only: remove the row"),
    ({"messages": [USER, YES | {"weight": 0.5}]}, "column messages has in message 2 the weight 0.5: only 0 (not learned)"),
    ({"messages": [USER | {"train": True}, YES]}, "column messages has in message 1 the train True, and only what the"),
    ({"messages": [USER, YES | {"train_detail": []}]}, "column messages has in message 2 a train_detail: parts of a message"),
    ({"messages": [USER, YES | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
     "column messages has in message 2 the arguments of tool call 1 as a string that is not JSON"),
    (MESSAGES | {"tools": "{"}, "column tools has the tools as a string that is not JSON"),
    (MESSAGES | {"tools": [{"type": "function"}]}, "column tools has no name of a function in tool 1"),
    ({"messages": [SYSTEM, USER, YES], "system": "Be long."}, "column system holds another system message than the"),
    ({"messages": [USER | {"images": ["cat.png"]}, YES]}, "column messages has in message 1 images, and conversations are"),
    ({"messages": [{"role": ["user"], "content": "a"}, YES]}, "column messages has in message 1 the unknown role"),
    (MESSAGES | {"chat_template_kwargs": "x"}, "column chat_template_kwargs is a str, not an object of options"),
    (MESSAGES | {"images": ["cat.png"]}, "column images belongs to the conversation, and conversations are trained on as text"),
    ({"conversations": [{"from": "human", "value": "<image>\nWhat?"}, GPT], "image": "cat.png"}, "column image belongs to the"),
    ({"conversations": [HUMAN, {"from": "function_call", "value": "weather"}]}, "column conversations has in message 2 the"),
    ({"instruction": "a", "output": 3}, "column output is a int, not a string"),
    ({"instruction": "a", "output": "b", "history": [["a"]]}, "column history has in item 1 no pair of a question"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_says_what_is_wrong_with_a_row(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        rows(reader(), values)
    assert str(raised.value).startswith(f"rows.jsonl:1: {message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chosen": "a", "rejected": "b"}, "column chosen and column rejected have no beginning in common, and there is no"),
        ({"chosen": [YES], "rejected": [NO]}, "column chosen and column rejected have no beginning in common, and there is no"),
        (
            {"prompt": "Who?", "chosen": [USER, YES], "rejected": [USER, NO]},
            "column prompt is not what both answers begin with",
        ),
        ({"prompt": "a", "chosen": "b"}, "the columns hold no conversation of a known shape (there are: chosen, prompt)"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "column prompt is null, not a string"),
    ],
)
def test_says_what_is_wrong_with_a_pair(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        rows(reader(pairs=True), values)
    assert str(raised.value).startswith(f"rows.jsonl:1: {message}")


def test_names_a_column_of_the_document_that_the_rows_lack() -> None:
    named = reader(columns={"prompt": "{ask}", "completion": "output"})
    with pytest.raises(DataError, match=r"^rows.jsonl:1: there is no column ask .* correct columns.prompt$"):
        rows(named, {"instruction": "a", "output": "b"})


def test_refuses_rows_of_another_shape_than_the_first() -> None:
    other = {"instruction": "a", "output": "b"}
    with pytest.raises(
        DataError, match=r"^rows.jsonl:2: there is no column messages, which .* \(there are: instruction, output\)"
    ):
        rows(reader(), MESSAGES, other)
    with pytest.raises(DataError, match=r"^rows.jsonl:2: column messages has in message 1 no role \(it has: from, value\)"):
        rows(reader(), MESSAGES, {"messages": [HUMAN, GPT]})
    with pytest.raises(DataError, match=r"^rows.jsonl:1: the columns hold no conversation of the preset Alpaca"):
        rows(reader(preset="Alpaca"), MESSAGES)
    texts = {"prompt": "a", "chosen": "b", "rejected": "c"}
    with pytest.raises(
        DataError, match=r"^rows.jsonl:2: column system is not in the source's first row, whose texts are joined"
    ):
        rows(reader(pairs=True), texts, texts | {"system": "Be brief."})
