"""CoNLL columns: a word and its tags in each line, and blank lines between sentences.

The word is in the first column and the tag in the last, as in CoNLL-2003 (Tjong Kim Sang and De Meulder 2003), or there are the
ten columns of CoNLL-U (universaldependencies.org/format.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from finetune_trainer.data.records.record import Record
from finetune_trainer.data.sources.decoding.lines import numbered_lines
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.formats.base import Format, text_details
from finetune_trainer.data.sources.options import ReadOptions
from finetune_trainer.protocol.outcome import DataError

_CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_COMMENT = re.compile(r"#\s*\S+\s*=|#\s+(?:newdoc|newpar|id)\b|#\S*$")
_WORD_NUMBER = re.compile(r"\d+")
_EXTRA_NUMBER = re.compile(r"\d+[-.]\d+")  # a range of words, such as 1-2, or an empty node, such as 1.1
_DOCUMENT_START = "-DOCSTART-"


def _read(file: File, options: ReadOptions) -> Iterator[Record]:
    rows: list[list[str]] = []
    first, width = 0, 0
    for number, line in numbered_lines(file, options.encoding):
        text = line.rstrip("\r\n")
        if not text.strip():
            if rows:
                yield _sentence(rows, f"{file.name}:{first}")
            rows = []
            continue
        if not rows and _is_comment(text):
            continue
        fields = text.split("\t") if "\t" in text else text.split()
        if fields[0] == _DOCUMENT_START:
            continue
        width = width or len(fields)
        if len(fields) != width or width == 1:
            needed = str(width) if width > 1 else "a word and its tag"
            raise DataError(
                f"{file.name}:{number}: {len(fields)} columns instead of {needed}: put tabs or spaces between a word and its "
                "tags, and blank lines between sentences"
            )
        first = number if not rows else first
        rows.append(fields)
    if rows:
        yield _sentence(rows, f"{file.name}:{first}")


def _is_comment(text: str) -> bool:
    """Whether a line before a sentence is a comment, and not the word #, which has tags like any other."""
    return _COMMENT.match(text) is not None


def _sentence(rows: Sequence[Sequence[str]], origin: str) -> Record:
    """The words as tokens, the tags of the last column as tags, and each column by its name or number."""
    words = [row for row in rows if not _EXTRA_NUMBER.fullmatch(row[0])]
    if len(rows[0]) == len(_CONLLU_COLUMNS) and words and all(_WORD_NUMBER.fullmatch(row[0]) for row in words):
        named: dict[str, Any] = dict(zip(_CONLLU_COLUMNS, map(list, zip(*words, strict=True)), strict=True))
        return Record({**named, "tokens": named["form"], "tags": named["upos"]}, origin)
    columns = [list(column) for column in zip(*rows, strict=True)]
    numbered: dict[str, Any] = {str(number): column for number, column in enumerate(columns)}
    return Record({**numbered, "tokens": columns[0], "tags": columns[-1]}, origin)


CONLL = Format((".conll", ".conllu", ".conll2003", ".iob", ".bio"), _read, images=False, inspect=text_details)
