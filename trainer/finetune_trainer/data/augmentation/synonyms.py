"""The file of synonyms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from finetune_trainer.data.sources.files import File
from finetune_trainer.protocol.outcome import DataError

Synonyms = Mapping[str, Sequence[str]]
"""Replacements by lower-case word."""


def read_synonyms(file: File) -> Synonyms:
    """The words of a JSON file; raises DataError if it is not an object of words and lists of words."""
    try:
        synonyms = json.loads(file.path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file.name}: not readable as JSON ({error}): write an object of words and lists of words") from error
    if not isinstance(synonyms, dict):
        raise DataError(f"{file.name}: a JSON {type(synonyms).__name__} and not an object: write words and lists of words")
    for word, replacements in synonyms.items():
        if not _is_word_list(replacements):
            raise DataError(f"{file.name}: {word!r} has {replacements!r} and not a list of words: correct or remove it")
    return synonyms


def _is_word_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word for word in value)
