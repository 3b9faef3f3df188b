"""CoNLL columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.reading import read_rows, write

from finetune_trainer.protocol.outcome import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are relative paths."""
    monkeypatch.chdir(tmp_path)


def read(name: str, content: str, **settings: object) -> list[tuple[list[str], list[str], str]]:
    write(name, content)
    rows = read_rows(name, "TokenClassification", **settings)
    return [(row.values["tokens"], row.values["tags"], row.origin) for row in rows]


CONLL2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

# NN B-NP O
1 CD I-NP O
"""
CONLLU = """# sent_id = 1
# text = vámonos = go
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tv\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tp\t_\t1\tobj\t_\t_
2.1\tempty\t_\t_\t_\t_\t_\t_\t_\t_

"""


def test_reads_the_columns_of_conll_2003() -> None:
    assert read("train.txt", CONLL2003, format="CoNLL") == [
        (["EU", "rejects"], ["B-ORG", "O"], "train.txt:3"),
        (["#", "1"], ["O", "O"], "train.txt:6"),
    ]
    assert read("a.conll", CONLL2003, columns={"tags": "1"})[0][1] == ["NNP", "VBZ"]


def test_reads_the_columns_of_conll_u() -> None:
    assert read("a.conllu", CONLLU) == [(["vamos", "nos"], ["VERB", "PRON"], "a.conllu:3")]
    assert read("a.conllu", CONLLU, columns={"tags": "xpos"})[0][1] == ["v", "p"]


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ("New York\tB-LOC\n\n\n\nis\tO", [["New York"], ["is"]]),
        ("# id 1\tdomain=en\nword _ _ O\n", [["word"]]),
        ("#hashtag\tO\nok\tO\n", [["#hashtag", "ok"]]),
        ("a O\r\n\r\nb O\r\n", [["a"], ["b"]]),
    ],
)
def test_divides_words_and_sentences(content: str, sentences: list[list[str]]) -> None:
    assert [tokens for tokens, _, _ in read("a.conll", content)] == sentences


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb\n", "a.conll:2: 1 columns instead of 2: put tabs or spaces between a word and its tags"),
        ("a\nb\n", "a.conll:1: 1 columns instead of a word and its tag: put tabs or spaces"),
        ("a O\n\nb X O\n", "a.conll:3: 3 columns instead of 2"),
    ],
)
def test_rejects_lines_with_other_columns(content: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        read("a.conll", content)
    assert str(raised.value).startswith(message)
