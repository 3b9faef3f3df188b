r"""Columns, paths and templates."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.data.records.columns import ColumnError, needed_columns, select
from finetune_trainer.data.records.row import make_row
from finetune_trainer.protocol.outcome import DataError

RECORD: dict[str, Any] = {
    "translation": {"en": "cat", "de": None, "x-y z": "odd"},
    "answers": [{"text": "one"}, {"text": "two"}],
    "grid": [[1, 2], [3, 4]],
    "a.b": "a column with a dot",
    "a": {"b": "a path"},
    "seg.json": {"label": "long name"},
    "{odd}": "braces",
    "instruction": "Add.",
    "input": "1 + 1",
    "empty": "",
    "blank": " \n",
    "null": None,
    "n": 3,
    "yes": True,
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("input", "1 + 1"),
        ("translation.en", "cat"),
        ("translation.de", None),
        ("translation.x-y z", "odd"),
        ("answers[1].text", "two"),
        ("grid[1][0]", 3),
        ("a.b", "a column with a dot"),
        ("seg.json.label", "long name"),
        ("{odd}", "braces"),
        ("{instruction}\n\n{input}", "Add.\n\n1 + 1"),
        ("{instruction}\n\n{empty}", "Add."),
        ("{instruction}\n\n{null}\n\n{input}", "Add.\n\n1 + 1"),
        ("{empty}\n\n{input}", "1 + 1"),
        ("{instruction}\n\n{blank}\n\n{input}", "Add.\n\n1 + 1"),
        ("{empty}\n\n{null}", ""),
        ("\n{input}\n", "\n1 + 1\n"),
        ("{instruction} {empty}", "Add."),
        ("Input: {empty}\nEnd", "Input:\nEnd"),
        ("{translation.en}/{answers[0].text}", "cat/one"),
        ("{n} {yes}", "3 true"),
        ('{"n": {n}}', '{"n": 3}'),
    ],
)
def test_selects_columns_paths_and_templates(expression: str, value: Any) -> None:
    assert select(RECORD, expression) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("missing", "there is no column missing (there are: "),
        ("translation.fr", "there is no translation.fr (translation holds: de, en, x-y z)"),
        ("translation.de.x", "there is no translation.de.x (translation.de is null)"),
        ("answers[2].text", "there is no answers[2] (answers is a list of 2)"),
        ("answers.text", "there is no answers.text (answers is a list of 2)"),
        ("input.x", "there is no input.x (input is a str)"),
        ("{instruction}\n{inptu}", "there is no column inptu (there are: "),
        (
            "{answers}",
            "column answers is a list of 2, and a template can hold only texts and numbers for the",
        ),
    ],
)
def test_says_what_a_record_has_instead(expression: str, message: str) -> None:
    with pytest.raises(ColumnError) as raised:
        select(RECORD, expression)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("body", "a:1: there is no column body (there are: n, text): set columns.text to one of them"),
        ("text.en", "a:1: there is no text.en (text holds: de): correct columns.text"),
        ("{n}\n{m}", r"a:1: there is no column m (there are: n, text) for the template {n}\n{m}: correct columns.text"),
        ("n", "a:1: column n is a int, not a string: correct or remove the row"),
    ],
)
def test_errors_name_the_role(column: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        make_row({"text": {"de": "a"}, "n": 1}, {"text": column}, "a:1")
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("expressions", "columns"),
    [
        (["b", "a.x"], ["a", "b"]),
        (["{c} {a[0]}"], ["a", "c"]),
        (["d.e"], ["d.e"]),
        (["missing", "a"], ["a", "b", "c", "d.e"]),
        (None, ["a", "b", "c", "d.e"]),
    ],
)
def test_finds_the_columns_that_a_table_has_to_read(expressions: list[str] | None, columns: list[str]) -> None:
    assert needed_columns(expressions, ["a", "b", "c", "d.e"]) == columns
