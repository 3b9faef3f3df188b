"""JSON lines and JSON documents."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.reading import read_rows, read_texts, resolve, write

from finetune_trainer.data.records.answers import parse_answers
from finetune_trainer.data.sources.decoding import json_text
from finetune_trainer.data.sources.formats.json_layout import Layout, Rows, find_rows, outline_of
from finetune_trainer.protocol.outcome import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths."""
    monkeypatch.chdir(tmp_path)


ROWS = [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("content", "settings", "lines"),
    [
        ('{"text": "a"}\n{"text": "b"}\n', {}, ["1", "2"]),
        ('{"text": "a"}\r{"text": "b"}\r', {}, ["1", "2"]),
        ('[{"text": "a"},\n {"text": "b"}]', {}, ["1", "2"]),
        (' \n[\n  {\n    "text": "a"\n  },\n  {\n    "text": "b"\n  }\n]\n', {}, ["3", "6"]),
        (json.dumps(ROWS), {}, ["1", "1 (row 2)"]),
        (json.dumps({"version": "1", "data": ROWS}), {}, ["1", "1 (row 2)"]),
        (json.dumps({"meta": {"n": 2}, "result": {"rows": ROWS}}, indent=1), {}, ["7", "10"]),
        (json.dumps({"train": ROWS, "test": [{"text": "c"}]}), {"records": "train"}, ["1", "1 (row 2)"]),
        (json.dumps({"a": {"train": ROWS, "test": ROWS}}), {"records": "a.test"}, ["1", "1 (row 2)"]),
        (json.dumps({"licenses": [{"id": 1}], "rows": ROWS}), {}, ["1", "1 (row 2)"]),
        (json.dumps({"text": ["a", "b"]}), {}, ["1", "1 (row 2)"]),
        (json.dumps({"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}), {}, ["1", "1 (row 2)"]),
        (json.dumps({"q1": {"text": "a"}, "q2": {"text": "b"}}), {}, ["1", "1 (row 2)"]),
        ('{\n"text": "a"\n}\n{\n"text": "b"\n}\n', {}, ["1", "4"]),
    ],
)
def test_reads_lines_and_documents(content: str, settings: dict[str, Any], lines: list[str]) -> None:
    write("a.json", content)
    assert read_texts("a.json", **settings) == [("a", f"a.json:{lines[0]}"), ("b", f"a.json:{lines[1]}")]


def test_reads_a_document_of_one_row() -> None:
    write("a.json", '{\n  "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]\n}')
    [row] = read_rows("a.json", "InstructionTuning")
    assert [message["content"] for message in row.values["messages"]] == ["a", "b"]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]},
        {"conversations": [{"from": "human", "value": "a"}], "system": "b"},
        {"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]},
    ],
)
def test_messages_are_no_rows(row: dict[str, Any]) -> None:
    reader = json_text.JSONReader(io.StringIO(json.dumps(row)))
    assert find_rows(outline_of(reader), None, None) == Rows(Layout.ROW)


def test_finds_conversations_by_name() -> None:
    conversation = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    write("a.json", json.dumps({"first": conversation, "second": conversation}))
    assert len(read_rows("a.json", "InstructionTuning")) == 2


def test_reads_an_array_whose_name_says_lines() -> None:
    write("a.jsonl", json.dumps(ROWS))
    assert [text for text, _ in read_texts("a.jsonl")] == ["a", "b"]


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Curie",
            "paragraphs": [
                {
                    "context": "Marie Curie discovered radium.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "Who?",
                            "answers": [{"text": "Marie Curie", "answer_start": 0}, {"text": "Curie", "answer_start": 6}],
                            "is_impossible": False,
                        },
                        {
                            "id": "2",
                            "question": "When?",
                            "answers": [],
                            "plausible_answers": [{"text": "radium", "answer_start": 23}],
                            "is_impossible": True,
                        },
                    ],
                }
            ],
        }
    ],
}


def test_flattens_the_articles_of_squad() -> None:
    write("train-v2.0.json", json.dumps(SQUAD))
    first, second = read_rows("train-v2.0.json", "QuestionAnswering")
    assert first.values["context"] == "Marie Curie discovered radium."
    assert parse_answers(first.values["answers"]) == [("Marie Curie", 0), ("Curie", 6)]
    assert (second.values["question"], parse_answers(second.values["answers"])) == ("When?", [])
    assert second.origin == "train-v2.0.json:1 paragraphs[0].qas[1]"
    assert resolve("train-v2.0.json", "QuestionAnswering").describe().notes == ("The rows are the list data.",)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (
            json.dumps({"train": ROWS, "test": ROWS}),
            {},
            "a.json: there are several lists of objects (train, test): name the one with the rows in records",
        ),
        (json.dumps(ROWS), {"records": "data"}, "a.json: the document is an array and has no data: remove records"),
        ('{"text": "a"}\n{"text": "b"}', {"records": "data"}, "a.json: each object is a row, so that there is no data: remove"),
        ('{"text":\n"a"}\n{}', {"records": "data"}, "a.json: each object is a row, so that there is no data: remove records"),
        (json.dumps({"a": ROWS}), {"records": "b"}, "a.json: there is no b (there are: a): correct records"),
        (json.dumps({"a": {"n": 1}}), {"records": "a"}, "a.json: a is no list of objects (it is an object): name such a list"),
        (
            json.dumps({"columns": ["text"], "index": [0], "data": [["a"]]}),
            {},
            "a.json: the document holds the columns' names and lists of values: write it with pandas' orient='records'",
        ),
        ('[{"text": "a"},\n{"text": }]', {}, "a.json:2: not valid JSON (Expecting value): correct the document"),
        ('[{"text": "a"}\n', {}, "a.json:2: not valid JSON (the text ends too early): correct the document"),
        ('[{"text": "a"}\n{"text": "b"}]', {}, "a.json:2: not valid JSON ('{' where , or ] should be): correct the document"),
        ('[{"text": "a"}]\n[]', {}, "a.json:2: not valid JSON (more text follows the array): correct the document"),
        ('[{"text": "a"},\n7]', {}, "a.json:2: a number and not an object: write an object for each row"),
        ('{"text": "a"}\n{"text": "b", "text": "c"}', {}, "a.json:2: not valid JSON (an object names 'text' twice): write one"),
        ('[{"text": "a", "text": "b"}]', {}, "a.json:1: not valid JSON (an object names 'text' twice): correct the document"),
        ('{"data": [{"text": "a"}], "data": []}', {}, "a.json:1: not valid JSON (an object names 'data' twice)"),
        ('{"body": "a"}', {}, "a.json:1: there is no column text (there are: body): set columns.text to one of them"),
        (" \n", {}, "a.json: the file is empty: fill it or leave it out"),
        ('[{"text": "a"},\n{"text": "\xff"}]'.encode("latin-1"), {}, "a.json:2: byte 0xff at column 11 is not UTF-8"),
    ],
)
def test_rejects_documents_without_rows(content: str | bytes, settings: dict[str, Any], message: str) -> None:
    write("a.json", content)
    with pytest.raises(DataError) as raised:
        read_rows("a.json", **settings)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_reads_values_that_span_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "CHUNK_CHARACTERS", chunk)
    rows = [{"text": f"{number}: " + 'é"\\\n' * number, "n": [number, -1.5e-3, None, True]} for number in range(40)]
    write("a.json", json.dumps({"n": 123456789, "rows": rows}, indent=1))
    assert [text for text, _ in read_texts("a.json")] == [row["text"] for row in rows]
