"""Schemes in which the tags of words mark entities, and their conversion to BIO.

BIO, also called IOB2, is the scheme that transformers' pipeline joins to entities: B-TYPE begins an entity, I-TYPE continues it
(Ramshaw and Marcus 1995; Tjong Kim Sang and Veenstra 1999). BILOU and BIOES also mark the last word (L or E) and entities of
one word (U or S); BMES writes M for I (Ratinov and Roth 2009).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
_TAG = re.compile(r"([BILUESM])[-_](.+)")
_CONTINUING = frozenset("ILEM")
_OPEN = frozenset("BIM")
_SCHEMES = {"BIO": "BI", "BILOU": "BILU", "BIOES": "BIES", "BMES": "BMES"}
"""The prefixes of each scheme; the first scheme that has all prefixes of the data is theirs."""
IOB1 = "IOB1"
"""BIO in which B only separates an entity from one of the same type before it; it has the same tags as BIO."""


class Tag(NamedTuple):
    """A tag of one word; the prefix of a word outside of all entities is O."""

    prefix: str
    entity_type: str


def parse_tag(name: str) -> Tag | None:
    """The parts of a tag; None for one that marks no entity, such as a part of speech."""
    if name == OUTSIDE:
        return Tag(OUTSIDE, "")
    match = _TAG.fullmatch(name)
    return Tag(match[1], match[2]) if match else None


def entity_types(names: Iterable[str]) -> list[str]:
    """The types of entities that all these tags mark; none where any tag is not of such a scheme."""
    tags = [parse_tag(name) for name in names]
    if None in tags:
        return []
    return sorted({tag.entity_type for tag in tags if tag and tag.entity_type})


def find_scheme(names: Iterable[str]) -> str | None:
    """The scheme of a set of tags, None if they mark no entities; a mix of schemes has the name of its prefixes."""
    tags = [parse_tag(name) for name in names]
    prefixes = {tag.prefix for tag in tags if tag} - {OUTSIDE}
    if None in tags or not prefixes:
        return None
    for scheme, letters in _SCHEMES.items():
        if prefixes <= set(letters):
            return scheme
    return "".join(sorted(prefixes))


def is_bio(names: Iterable[str]) -> bool:
    """Whether transformers can join the tags to entities as they are."""
    return all(name == OUTSIDE or re.match("[BI]-", name) for name in names)


def to_bio(names: Sequence[str]) -> list[str]:
    """The tags of consecutive words in BIO.

    A tag that cannot continue the entity before it begins one, as in the script of the CoNLL shared tasks.
    """
    converted = []
    previous = Tag(OUTSIDE, "")
    for name in names:
        tag = parse_tag(name) or Tag(OUTSIDE, "")
        if tag.prefix == OUTSIDE:
            converted.append(OUTSIDE)
        else:
            converted.append(f"{'I' if _continues(previous, tag) else 'B'}-{tag.entity_type}")
        previous = tag
    return converted


def bio_labels(names: Sequence[str]) -> list[str]:
    """The BIO tags that replace these tags: both of each type, and O."""
    labels = dict.fromkeys([OUTSIDE])
    for name in names:
        tag = parse_tag(name)
        if tag and tag.entity_type:
            labels |= dict.fromkeys([f"B-{tag.entity_type}", f"I-{tag.entity_type}"])
    return list(labels)


class SequenceFaults(NamedTuple):
    """Where consecutive tags break the rules of BIO and its extensions."""

    begins_inside: bool
    """An entity begins with a tag that continues one: the rule in IOB1."""
    begins_apart: bool
    """An entity begins with B although no entity of its type is before it: never in IOB1."""
    is_unfinished: bool
    """An entity ends without the tag that marks its last word; only in schemes with such a tag."""

    @classmethod
    def of(cls, names: Sequence[str], marks_ends: bool) -> SequenceFaults:
        """The faults of a row; `marks_ends` says whether the scheme marks last words."""
        begins_inside = begins_apart = is_unfinished = False
        previous = Tag(OUTSIDE, "")
        for name in [*names, OUTSIDE]:
            tag = parse_tag(name) or Tag(OUTSIDE, "")
            continues = _continues(previous, tag)
            begins_inside |= tag.prefix in _CONTINUING and not continues
            begins_apart |= tag.prefix == "B" and previous.entity_type != tag.entity_type
            is_unfinished |= marks_ends and previous.prefix in _OPEN and not continues
            previous = tag
        return cls(begins_inside, begins_apart, is_unfinished)


def _continues(previous: Tag, tag: Tag) -> bool:
    return tag.prefix in _CONTINUING and previous.prefix in _OPEN and previous.entity_type == tag.entity_type
