"""Plain text: each file, paragraph or line is one record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.lines import Line, numbered_lines
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import FileDetails, Format, text_details, validate_columns
from finetune_trainer.data.sources.names import uncompressed_name
from finetune_trainer.data.sources.options import ReadOptions


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    validate_columns(file, options, ("text",), "a plain text")
    # An empty file, such as a package's __init__.py, is ordinary among source files.
    lines = numbered_lines(file, options.encoding) if file.path.stat().st_size else iter(())
    match options.text.rows_are:
        case "File":
            yield Record({"text": "".join(line.text for line in lines)}, file.name)
        case "Paragraph":
            for number, text in _paragraphs(lines):
                yield Record({"text": text}, f"{file.name}:{number}")
        case "Line":
            for number, text in lines:
                if text.strip():
                    yield Record({"text": text.rstrip("\r\n")}, f"{file.name}:{number}")


def _paragraphs(lines: Iterator[Line]) -> Iterator[Line]:
    """The paragraphs without the blank lines between them, each with the number of its first line."""
    first, paragraph = 0, ""
    for number, text in lines:
        if text.strip():
            first = number if not paragraph else first
            paragraph += text
        elif paragraph:
            yield Line(first, paragraph.rstrip("\r\n"))
            paragraph = ""
    if paragraph:
        yield Line(first, paragraph.rstrip("\r\n"))


def _inspect(file: File, options: ReadOptions) -> FileDetails:
    details = text_details(file, options)
    first = next(numbered_lines(file, options.encoding), Line(1, "")) if file.path.stat().st_size else Line(1, "")
    if first.text.startswith(('{"', '[{"')):
        return replace(details, notes=("The text looks like JSON: set format if its objects are rows.",))
    return details


def is_plain_text(file: File) -> bool:
    """Whether the file's name ends with a suffix of plain text."""
    return uncompressed_name(file.name).endswith(PLAIN_TEXT.suffixes)


PLAIN_TEXT = Format(
    (
        ".txt", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".yaml", ".yml", ".toml", ".py", ".pyi", ".c", ".h", ".cc",
        ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".scala", ".js", ".ts", ".rb", ".php", ".sh", ".sql", ".r", ".jl", ".lua",
    ),
    _read,
    images=False,
    inspect=_inspect,
)  # fmt: skip
