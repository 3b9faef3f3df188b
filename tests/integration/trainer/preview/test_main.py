"""The module that `finetune data` starts: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import tiny

from finetune_trainer.preview.__main__ import main


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "hello world"}\n' * 3)
    spec = tiny.spec(data={"train": [{"source": f"file://{file}"}]}, model={"tokenizer": {"train": {"vocabSize": 300}}})
    (tmp_path / "train.json").write_text(json.dumps(spec.document()))
    return file


def run(folder: Path, *options: str) -> int:
    return main([str(folder / "train.json"), f"--cache-dir={folder}/cache", "--name=tiny", *options])


def test_prints_lines_without_colors_to_a_pipe(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rows.parent, "--rows=1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny: CausalLM, Full; all rows"
    assert lines[-1] == "  hello« world<|endoftext|>»"
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)


@pytest.mark.parametrize(("shown", "content"), [(1, "it contains rows of the data"), (0, "it contains no rows of the data")])
def test_says_whether_the_page_contains_rows(shown: int, content: str, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = rows.parent / "page.html"
    assert run(rows.parent, f"--rows={shown}", f"--html={page}") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"the page is at {page}; {content}"
    assert ("hello" in page.read_text()) == bool(shown)


def test_prints_findings_alone(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rows.parent, "--output=findings") == 0
    assert capsys.readouterr().out == (f"2 of 3 training rows (66.7 %) that repeat an earlier one: the first is {rows}:2\n")


def test_fails_with_one_sentence_and_the_exit_code_of_a_run(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rows.parent, "--html=/nowhere/page.html") == 2
    assert capsys.readouterr().err == (
        "--html: /nowhere/page.html cannot be written (No such file or directory): name another file\n"
    )
    rows.write_text('{"text": 3}\n')
    assert run(rows.parent, "--output=json") == 3
    assert capsys.readouterr() == ("", f"{rows}:1: column text is a int, not a string: correct or remove the row\n")
