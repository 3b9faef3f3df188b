"""CSV and TSV: delimiters, headers, quotes and line ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.reading import read_rows, resolve, write

from finetune_trainer.data.sources.formats.csv_dialect import find_delimiter
from finetune_trainer.protocol.outcome import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths."""
    monkeypatch.chdir(tmp_path)


def read(name: str, content: str | bytes, **settings: Any) -> list[tuple[str, str, str]]:
    write(name, content)
    rows = read_rows(name, "SequenceClassification", **settings)
    return [(row.values["text"], row.values["label"], row.origin) for row in rows]


def error(name: str, content: str | bytes, **settings: Any) -> str:
    with pytest.raises(DataError) as raised:
        read(name, content, **settings)
    return str(raised.value)


ROWS = [("a, b; c", "x", "2"), ("d|e", "y", "3")]


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("excel.csv", "text;label\n\"a, b; c\";x\nd|e;y\n", {}),
        ("excel.csv", "\ufefftext;label\r\n\"a, b; c\";x\r\nd|e;y\r\n", {}),
        ("old.csv", "text,label\r\"a, b; c\",x\rd|e,y\r", {}),
        ("tab.csv", "text\tlabel\na, b; c\tx\nd|e\ty\n", {}),
        ("a.tsv", "text\tlabel\na, b; c\tx\nd|e\ty\n", {}),
        ("A.TAB", "text\tlabel\na, b; c\tx\nd|e\ty\n", {}),
        ("bar.csv", "text|label\na, b; c|x\n\"d|e\"|y\n", {}),
        ("said.csv", "text~label\na, b; c~x\nd|e~y", {"csv": {"delimiter": "~"}}),
        ("quote.csv", "text,label\n'a, b; c',x\nd|e,y", {"csv": {"quote": "'"}}),
        ("more.csv", "id,text,label\n1,\"a, b; c\",x\n2,d|e,y\n", {}),
    ],
)  # fmt: skip
def test_finds_or_takes_the_delimiter(name: str, content: str, settings: dict[str, Any]) -> None:
    expected = [(text, label, f"{name}:{line}") for text, label, line in ROWS]
    assert read(name, content, **settings) == expected


def test_reads_a_file_whose_first_line_names_the_delimiter() -> None:
    content = "sep=;\ntext;label\na,b;x\n"
    assert read("a.csv", content) == [("a,b", "x", "a.csv:3")]
    assert resolve("a.csv").describe().delimiter == "semicolon"


def test_numbers_the_columns_of_a_file_without_header() -> None:
    columns = {"text": "1", "label": "0"}
    rows = read("a.csv", "pos,good\nneg,bad\n", csv={"header": False}, columns=columns)
    assert rows == [("good", "pos", "a.csv:1"), ("bad", "neg", "a.csv:2")]


def test_takes_quotes_for_text_if_they_have_no_meaning() -> None:
    content = 'text\tlabel\n"so it begins\tx\nand "ends" here\ty\n'
    assert read("a.tsv", content, csv={"quote": ""}) == [
        ('"so it begins', "x", "a.tsv:2"),
        ('and "ends" here', "y", "a.tsv:3"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label,text\na,x,b\n", "a.csv:1: several columns are named text: give each a name of its own"),
        (
            "a.csv",
            "text:label\na:x\n",
            "a.csv:1: there is no column text or label (there are: text:label; divided by comma): correct columns, or set "
            "csv.delimiter, or set csv.header: false if the first line is a row",
        ),
        ("a.csv", "text;label\na;b;x\n", "a.csv:2: 3 fields under a header of 2: quote fields that hold a semicolon, or set"),
        ("a.csv", "text,id\na,1\n", "a.csv:2: there is no column label (there are: id, text): set columns.label"),
        ("a.csv", "text, label\na, x\n", "a.csv:2: there is no column label (there are: ' label', text): set columns.label"),
        (
            "a.tsv",
            'text\tlabel\n"open\tx\nclose"\ty\n',
            "a.tsv:2: a quoted field spans 2 lines that look like rows: set csv.quote: '' if quotes have no meaning",
        ),
        ("a.csv", "text,label\na,x\ntext,label\n", "a.csv:3: the line repeats the header, as in files that were joined"),
        ("a.csv", " Text , Label\na,x\n", "a.csv:1: there is no column text or label (there are: ' Label', ' Text '; d"),
        ("a.csv", "text,label\na\0b,x\n", "a.csv:2: character 2 is NUL, read as UTF-8: remove it, or set encoding"),
        ("a.csv", 'text,label\n"a" b,x\n', "a.csv:2: not valid CSV (',' expected after '\"'): write a quote inside a"),
    ],
)  # fmt: skip
def test_rejects_files_that_would_be_misread(name: str, content: str, message: str) -> None:
    assert error(name, content).startswith(message)


def test_allows_several_columns_without_a_name() -> None:
    assert read("a.csv", "text,label,,\na,x,,\n") == [("a", "x", "a.csv:2")]


@pytest.mark.parametrize(
    ("lines", "delimiter"),
    [
        (["text"], ","),
        (["text", "one; two", "three"], ","),
        (["text,label", "a;b,x", "c;d,y"], ","),
        (["text, short;label", "a, b;x", "c;y"], ";"),
        (["a\tb;c", "1\t2;3"], "\t"),
        ([], ","),
    ],
)
def test_prefers_the_delimiter_that_all_rows_agree_on(lines: list[str], delimiter: str) -> None:
    assert find_delimiter(lines, '"') == delimiter
