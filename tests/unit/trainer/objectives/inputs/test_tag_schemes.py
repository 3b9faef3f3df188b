"""Schemes of tags, and their conversion to BIO."""

from __future__ import annotations

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOBES, Entities

from finetune_trainer.objectives.inputs.tag_schemes import (
    SequenceFaults,
    bio_labels,
    entity_types,
    find_scheme,
    is_bio,
    to_bio,
)


@pytest.mark.parametrize(
    ("names", "scheme"),
    [
        ("O B-PER I-PER", "BIO"), ("O I-PER", "BIO"), ("O B-PER I-PER L-PER U-LOC", "BILOU"), ("O U-LOC", "BILOU"),
        ("O B-PER I-PER E-PER S-LOC", "BIOES"), ("O B-PER E-PER M-PER S-PER", "BMES"), ("B_PER I_PER O", "BIO"),
        ("O B-PER L-PER S-PER", "BLS"), ("O", None), ("NOUN VERB", None), ("O B-PER NOUN", None),
    ],
)  # fmt: skip
def test_finds_the_scheme(names: str, scheme: str | None) -> None:
    assert find_scheme(names.split()) == scheme


@pytest.mark.parametrize(
    ("tags", "bio"),
    [
        ("B-PER I-PER L-PER O U-LOC U-LOC", "B-PER I-PER I-PER O B-LOC B-LOC"),
        ("B-PER E-PER S-PER O B-LOC I-LOC E-LOC", "B-PER I-PER B-PER O B-LOC I-LOC I-LOC"),
        ("B_PER M_PER E_PER", "B-PER I-PER I-PER"),
        ("I-PER I-PER B-PER I-LOC", "B-PER I-PER B-PER B-LOC"),
        ("L-PER I-PER O", "B-PER B-PER O"),
    ],
)
def test_converts_to_bio(tags: str, bio: str) -> None:
    assert to_bio(tags.split()) == bio.split()


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [("B-PER I-PER L-PER O U-LOC U-LOC B-LOC L-LOC", BILOU), ("B-PER I-PER E-PER O S-LOC S-LOC B-LOC E-LOC", IOBES)],
)
def test_marks_the_entities_of_seqeval(tags: str, scheme: type) -> None:
    theirs = [(entity.tag, entity.start, entity.end - 1) for entity in Entities([tags.split()], scheme).entities[0]]
    assert get_entities(to_bio(tags.split())) == theirs


@pytest.mark.parametrize(
    ("tags", "marks_ends", "faults"),
    [
        ("B-PER I-PER O", False, (False, True, False)),
        ("I-PER B-PER O I-LOC", False, (True, False, False)),
        ("O I-PER B-LOC", False, (True, True, False)),
        ("B-PER L-PER U-LOC", True, (False, True, False)),
        ("B-PER O", True, (False, True, True)),
        ("B-PER I-PER", True, (False, True, True)),
        ("L-PER O", True, (True, False, False)),
    ],
)  # fmt: skip
def test_finds_faults_of_a_sequence(tags: str, marks_ends: bool, faults: tuple[bool, bool, bool]) -> None:
    assert SequenceFaults.of(tags.split(), marks_ends) == faults


def test_names_the_labels_and_types() -> None:
    assert bio_labels(["U-LOC", "O", "B-PER", "L-PER"]) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert entity_types(["O", "B-PER", "I-LOC"]) == ["LOC", "PER"]
    assert entity_types(["O", "VERB"]) == []
    assert is_bio(["O", "B-PER", "I-PER"])
    assert not is_bio(["O", "B_PER"])
    assert not is_bio(["O", "S-PER"])
