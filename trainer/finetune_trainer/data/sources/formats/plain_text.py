"""Plain text: each file is one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format, numbered_lines
from finetune_trainer.protocol.outcome import DataError


def _read(file: File, columns: Mapping[str, str]) -> Iterator[Row]:
    for role in columns:
        if role != "text":
            raise DataError(f"{file.name}: a plain text has no {role}: use JSONLines, CSV or Parquet, or another objective")
    # An empty file, such as a package's __init__.py, is ordinary among source files.
    text = "".join(line for _, line in numbered_lines(file)) if file.path.stat().st_size else ""
    yield make_row({"text": text}, {"text": "text"}, file.name)


PLAIN_TEXT = Format(
    (
        ".txt", ".txt.gz", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".yaml", ".yml", ".toml", ".py", ".pyi", ".c",
        ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".kt", ".scala", ".js", ".ts", ".rb", ".php", ".sh", ".sql",
        ".r", ".jl", ".lua",
    ),
    _read,
    images=False,
)  # fmt: skip
