"""How the files of a data source are read."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from finetune_trainer.config.base import Section

FormatName = Literal[
    "Auto",
    "JSONLines",
    "JSON",
    "CSV",
    "Parquet",
    "Arrow",
    "WebDataset",
    "CoNLL",
    "Text",
    "ImageFolder",
]


class CSVConfig(Section):
    """The dialect of CSV files."""

    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="The character between two fields; by default a tab in .tsv files, and otherwise the one of comma, tab, "
        "semicolon and | that divides the header and the first rows into equally many fields.",
    )
    quote: str = Field(
        '"', max_length=1, description="The character around fields that hold delimiters; empty if quotes have no meaning."
    )
    header: bool = Field(
        True, description="Whether the first line names the columns. Without a header their names are 0, 1 and so on."
    )


class TextConfig(Section):
    """How plain text becomes rows."""

    rows_are: Literal["File", "Paragraph", "Line"] = Field(
        "File",
        description="A row is a whole file, a paragraph (blank lines divide paragraphs) or a line that is not blank.",
    )


def _validate_encoding(name: str) -> str:
    try:
        is_text = codecs.lookup(name)._is_text_encoding
    except LookupError:
        is_text = False
    if not is_text:
        raise ValueError(f"{name} is no text encoding: write a name such as utf-8, utf-16, latin-1, windows-1252 or shift_jis")
    return name


Encoding = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="The encoding of text, JSON and CSV files, by the name of a Python codec; UTF-8 by default. A byte-order "
        "mark decides by itself.",
    ),
    AfterValidator(_validate_encoding),
]
