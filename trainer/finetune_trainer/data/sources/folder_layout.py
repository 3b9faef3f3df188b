"""Which files of a folder are read: those of one split, and none that only describe the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import PurePosixPath
from typing import NamedTuple

from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.names import uncompressed_name
from finetune_trainer.protocol.outcome import DataError

SPLIT_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The names that `datasets` takes for splits, in folders and files."""
_SPLIT_OF = {keyword: split for split, keywords in SPLIT_KEYWORDS.items() for keyword in keywords}
_KEYWORDS = "|".join(_SPLIT_OF)
_SPLIT_FOLDER = re.compile(rf"({_KEYWORDS})(?:[-._ 0-9].*)?", re.IGNORECASE)
_SPLIT_FILE = re.compile(rf"(?:.*[-._ ])?({_KEYWORDS})(?:[-._ 0-9].*)?", re.IGNORECASE)
_SAVED_DATASET = ("dataset_info.json", "dataset_dict.json", "state.json")
_DOCUMENTATION = re.compile(r"(?:readme|license|licence|changelog|citation)(?:\.(?:md|txt|rst))?")


class FileKind(Enum):
    """The criteria for reading splits from the names of files."""

    TEXTS = "texts"
    TABLES = "tables"
    LABELED_IMAGES = "images in folders that are their labels"


class Selection(NamedTuple):
    """The files to read, and sentences about those that are left out."""

    files: list[File]
    notes: tuple[str, ...] = ()


class SplitChoice(NamedTuple):
    """The split that a document asks for, or else the one that is read by default; `field` is for error messages."""

    name: str | None
    default: str
    field: str

    @property
    def wanted(self) -> str:
        """The split to read, by the name that stands for all of its keywords."""
        name = self.name or self.default
        return _SPLIT_OF.get(name.lower(), name)


class _Located(NamedTuple):
    """A file with the split that its path names, and its path below the folder of the split."""

    file: File
    split: str | None
    below: str


def without_descriptions(files: Sequence[File], kind: FileKind) -> Selection:
    """The files without those that describe the others: the state of a dataset saved to disk, and documentation of tables."""
    has_arrow = any(file.name.endswith(".arrow") for file in files)
    kept, left_out = [], []
    for file in files:
        name = PurePosixPath(file.relative_path).name.lower()
        is_saved_state = has_arrow and (name in _SAVED_DATASET or (name.startswith("cache-") and name.endswith(".arrow")))
        if is_saved_state or (kind is FileKind.TABLES and len(files) > 1 and _DOCUMENTATION.fullmatch(name)):
            left_out.append(file.relative_path)
        else:
            kept.append(file)
    return Selection(kept, (f"{', '.join(left_out)} are not data and not read.",) if left_out else ())


def describe_unread(names: Sequence[str]) -> tuple[str, ...]:
    """The sentence about files of a folder whose suffixes are not read; none for no files."""
    if not names:
        return ()
    files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
    return (f"{files} not read because of the suffix, such as {names[0]}.",)


def select_split(files: Sequence[File], choice: SplitChoice, kind: FileKind) -> Selection:
    """The files of one split, if the files of a folder are in folders or have names of several splits; otherwise all files.

    A split's folder is no class: labeled images are in a sub-folder of it. Raises DataError if there is no such split, and if
    a folder of tables or labeled images mixes splits and something else. Texts may have any name.
    """
    are_labeled_images = kind is FileKind.LABELED_IMAGES
    located = [_locate(file, are_labeled_images) for file in files]
    found = sorted({split for _, split, _ in located if split})
    others = sorted({PurePosixPath(file.relative_path).parts[0] for file, split, _ in located if split is None})
    is_divided = not others and (len(found) > 1 or are_labeled_images)
    if choice.name is None and not is_divided:
        if kind is not FileKind.TEXTS and len(found) > 1:
            raise DataError(
                f"{choice.field}: the folder holds splits ({', '.join(found)}) and something else ({others[0]}): set split, "
                "or name one of them in source"
            )
        return Selection(list(files))
    if choice.wanted not in found:
        has = f"the files are of {', '.join(found)}" if found else "no folder or file is named like a split"
        remedy = "correct or remove split" if choice.name else "set split"
        raise DataError(f"{choice.field}: there is no split {choice.name or choice.default} ({has}): {remedy}")
    chosen = []
    for file, split, below in located:
        if split == choice.wanted:
            chosen.append(replace(file, relative_path=below) if are_labeled_images else file)
    rest = [split for split in found if split != choice.wanted]
    note = f"The files of the split {choice.wanted} are read" + (f", not those of {', '.join(rest)}." if rest else ".")
    return Selection(chosen, (note,))


def _locate(file: File, are_labeled_images: bool) -> _Located:
    *folders, name = PurePosixPath(file.relative_path).parts
    for number, folder in enumerate(folders):
        has_class = number + 1 < len(folders)
        if (match := _SPLIT_FOLDER.fullmatch(folder)) and (has_class or not are_labeled_images):
            return _Located(file, _SPLIT_OF[match[1].lower()], "/".join([*folders[number + 1 :], name]))
    stem = PurePosixPath(uncompressed_name(name)).stem
    match = None if are_labeled_images else _SPLIT_FILE.fullmatch(stem)
    return _Located(file, _SPLIT_OF[match[1].lower()] if match else None, file.relative_path)
