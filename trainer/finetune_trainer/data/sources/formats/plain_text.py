"""Plain text: each file is one row."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format, numbered_lines, validate_columns
from finetune_trainer.data.sources.options import ReadOptions


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    validate_columns(file, options, ("text",), "a plain text")
    # An empty file, such as a package's __init__.py, is ordinary among source files.
    text = "".join(line for _, line in numbered_lines(file)) if file.path.stat().st_size else ""
    yield Record({"text": text}, file.name)


PLAIN_TEXT = Format(
    (
        ".txt", ".txt.gz", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".yaml", ".yml", ".toml", ".py", ".pyi", ".c",
        ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".scala", ".js", ".ts", ".rb", ".php", ".sh", ".sql",
        ".r", ".jl", ".lua",
    ),
    _read,
    images=False,
)  # fmt: skip
