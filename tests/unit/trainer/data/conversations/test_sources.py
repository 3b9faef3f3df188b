"""Conversations in files: what a source says about them, and the null keys of columnar files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
from tests.support.reading import read_rows, resolve

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
OTHER_CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}}
MESSAGES = [
    {"role": "user", "content": "Weather in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny", "name": "weather"},
    {"role": "assistant", "content": None, "tool_calls": [OTHER_CALL]},
]


def test_parquet_gives_messages_no_keys_that_they_lack(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist([{"messages": MESSAGES}])
    assert table.column("messages")[0].as_py()[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris", "zone": None}
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    [row] = read_rows(str(tmp_path / "rows.parquet"), "InstructionTuning")
    assert row.values == {"messages": MESSAGES}


def test_source_says_which_shape_it_has_and_what_is_not_read(tmp_path: Path) -> None:
    row = {"id": 7, "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "score": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    description = resolve(str(tmp_path / "rows.jsonl"), "InstructionTuning").describe()
    assert (description.conversation, description.columns) == ("ShareGPT", {"messages": "conversations"})
    assert description.notes == ("the columns id, score are not read",)
