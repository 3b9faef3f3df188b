"""The texts of conversations, which the data checks read and augmentation rewrites."""

from __future__ import annotations

from finetune_trainer.data.records.row import Row, rewrite_texts, texts

CALL = {"type": "function", "function": {"name": "mail", "arguments": {"to": "ann@example.org", "tags": ["new"], "count": 2}}}
ROW = Row(
    {
        "messages": [
            {"role": "user", "content": "Write to her."},
            {"role": "assistant", "content": None, "reasoning_content": "Whom?", "tool_calls": [CALL]},
        ],
        "tools": [{"type": "function", "function": {"name": "mail"}}],
    },
    "rows.jsonl:1",
    {"messages": "messages", "tools": "tools"},
)


def test_reasoning_and_arguments_are_texts() -> None:
    assert list(texts(ROW)) == ["Write to her.", "Whom?", "ann@example.org", "new"]


def test_rewriting_keeps_tools_and_their_names() -> None:
    rewritten = rewrite_texts(ROW, str.upper, "spec.data.augmentation")
    call = {
        "type": "function",
        "function": {"name": "mail", "arguments": {"to": "ANN@EXAMPLE.ORG", "tags": ["NEW"], "count": 2}},
    }
    assert rewritten.values["messages"][1] == {
        "role": "assistant", "content": None, "reasoning_content": "WHOM?", "tool_calls": [call],
    }  # fmt: skip
    assert rewritten.values["tools"] == ROW.values["tools"]
