"""One row of data as an objective sees it: values by their roles, checked as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic.alias_generators import to_camel

from finetune_trainer.data.records.answers import answers_of
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

SPEAKERS = ("system", "developer", "user", "assistant", "tool")  # the roles of a conversation's messages


class Row(NamedTuple):
    """Values by role. `origin` is the row's file and, where it has one, its line or row, counted from 1."""

    values: Mapping[str, Any]
    origin: str
    names: Mapping[str, str]
    """What the data calls each role, for messages."""
    task: str | None = None
    """Whose row it is, where several tasks are learnt."""
    folder: Path | None = None
    """Where the paths in its values begin."""
    examples: Sequence[Row] = ()
    """Rows that stand before it, solved; none but where the objective's options say `in_context`."""

    @property
    def subject(self) -> Any:
        """What the row is about: the value of the first of the roles."""
        return next(iter(self.values.values()))

    def complaint(self, role: str, wrong: str) -> DataError:
        """The error that one of the values is; `wrong` says what is wrong and what to do."""
        return DataError(f"{self.origin}: column {self.names[role]} {wrong}")


def make_row(row: Mapping[str, Any], names: Mapping[str, str], origin: str) -> Row:
    """The columns that `names` gives to roles; raises DataError for one that is missing or holds what nobody could use."""
    values = {}
    for role, name in names.items():
        if name not in row:
            raise missing_column(role, name, row, origin)
        values[role] = row[name]
    made = Row(values, origin, names)
    for role, value in values.items():
        if wrong := ROLES[role].check(value):
            raise made.complaint(role, wrong)
    return made


def missing_column(role: str, name: str, present: object, origin: str) -> DataError:
    """The error for a column that is not there, naming those that are."""
    names = ", ".join(sorted(str(name) for name in present)) if hasattr(present, "__iter__") else ""
    return DataError(
        f"{origin}: there is no column {name} (there are: {names or 'none'}): set columns.{to_camel(role)} to one of them"
    )


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        found = "null" if value is None else f"a {type(value).__name__}"
        return f"is {found}, not a string: correct or remove the row"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"holds half of a surrogate pair at character {error.start + 1}: correct the row"
    return None


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _messages(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"is {'null' if value is None else f'a {type(value).__name__}'}, not a list of messages: correct the row"
    for number, message in enumerate(value, start=1):
        if wrong := _message(message):
            return f"has in message {number} {wrong}"
    return None if value else "is a list without messages: correct or remove the row"


def _message(message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"a {type(message).__name__}, not an object with role and content: correct the row"
    role, content = message.get("role"), message.get("content")
    if role not in SPEAKERS:
        found = "no role" if role is None else f"the unknown role {role!r}"
        return f"{found}: write one of {', '.join(SPEAKERS)}"
    if content is None:
        return None if message.get("tool_calls") else "no content: add it, or remove the row"
    wrong = _text(content)
    return wrong and f"a content that {wrong}"


def _said(value: Any) -> str | None:
    return _messages(value) if isinstance(value, list) else _text(value)


def _spoken(value: Any) -> Iterator[str]:
    messages = value if isinstance(value, list) else [{"content": value}]
    yield from (message["content"] for message in messages if message.get("content"))


def _retold(value: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(value, list):
        return change(value)
    return [message | {"content": change(message["content"])} if message.get("content") else message for message in value]


def _label(value: Any) -> str | None:
    if value is None or isinstance(value, dict):
        return f"is {'null' if value is None else 'an object'}, not a label, a list of labels or a number: correct the row"
    return None


def _words(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"{_is_no_list(value)} of words: correct the row"
    for number, word in enumerate(value, start=1):
        if wrong := _text(word):
            return f"is a list whose item {number} {wrong}"
    return None


def _tags(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"{_is_no_list(value)} of labels: correct the row"
    for number, tag in enumerate(value, start=1):
        if not isinstance(tag, str | int):
            return f"is a list whose item {number} is {tag!r}, neither a label nor a label's number: correct the row"
    return None


def _answers(value: Any) -> str | None:
    try:
        answers_of(value)
    except ValueError as error:
        return str(error)
    return None


def _is_no_list(value: Any) -> str:
    if isinstance(value, str):
        return "is a string (CSV holds nothing else: write JSONLines or Parquet), not a list"
    return f"is {'null' if value is None else f'a {type(value).__name__}'}, not a list"


def _image(value: Any) -> str | None:
    inner = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
    if isinstance(inner, str | bytes) and inner:
        return None
    found = "null" if value is None else "empty" if inner in ("", b"", None) else f"a {type(value).__name__}"
    return f"is {found}, not an image: give a path, base64 or bytes, or remove the row"


class Role(NamedTuple):
    """What a column is to an objective."""

    check: Callable[[Any], str | None]
    """What is wrong with a value and what to do; None for one that is right."""
    texts: Callable[[Any], Iterable[str]] = lambda value: ()
    """The texts in a value that is right: what a tokenizer may be trained on, and the data report looks through."""
    rewritten: Callable[[Any, Callable[[str], str]], Any] | None = None
    """The value with each of its texts changed; None where that would make the row wrong, as where characters are counted."""


PLAIN_TEXT = Role(_text, lambda value: (value,), lambda value, change: change(value))
ROLES: dict[str, Role] = {
    "text": PLAIN_TEXT,
    "text_pair": PLAIN_TEXT,
    "negative": Role(
        _optional_text, lambda value: (value,) if value else (), lambda value, change: change(value) if value else value
    ),
    "messages": Role(_messages, _spoken, _retold),
    "prompt": Role(_said, _spoken, _retold),
    "completion": PLAIN_TEXT,
    "chosen": Role(_said, _spoken, _retold),
    "rejected": Role(_said, _spoken, _retold),
    "label": Role(_label),
    "tokens": Role(_words, lambda value: (" ".join(value),)),
    "tags": Role(_tags),
    "context": Role(_text, lambda value: (value,)),
    "question": PLAIN_TEXT,
    "answers": Role(_answers),
    "image": Role(_image),
    "target": PLAIN_TEXT,
}
"""The roles by the names they have in `config.Columns`."""


def texts(row: Row) -> Iterator[str]:
    """All texts of a record, those of its examples first."""
    for one in (*row.examples, row):
        for role, value in one.values.items():
            yield from ROLES[role].texts(value)


def rewritten(row: Row, change: Callable[[str], str], field: str) -> Row:
    """The record with each of its texts changed; raises ConfigurationError, beginning with `field`, if that cannot be done."""
    values = {}
    for role, value in row.values.items():
        rewrite = ROLES[role].rewritten
        if rewrite is not None:
            value = rewrite(value, change)
        elif any(change(text) != text for text in ROLES[role].texts(value)):
            raise ConfigurationError(
                f"{field}: column {row.names[role]} cannot be altered without the rest of the row becoming wrong "
                f"({row.origin}): choose something else"
            )
        values[role] = value
    return row._replace(values=values)
