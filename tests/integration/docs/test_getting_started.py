"""The page "First run on your machine" works as it is written: its commands run, and their output looks as shown.

In the page a block of YAML with a title is a file to save, and a `console` block holds commands after `$ ` with their output.
Numbers, durations and paths may differ; `...` stands for any number of lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.markdown_pages import ROOT, blocks

PAGE = ROOT / "docs/getting-started/first-run.md"
PART = " · "  # between the parts of a progress line
PLACEHOLDERS = (
    (re.compile(r"\S*/\S*"), "PATH"),
    (re.compile(r"\b(\d+h)?(\d+m)?\d+s\b"), "DURATION"),
    (re.compile(r"\d[\d,.]*"), "NUMBER"),
)


def shape_of(text: str) -> str:
    """A line or part of one with placeholders for what differs between runs; a fraction such as 20/60 keeps its form."""
    text = re.sub(r"\b(\d+)/(\d+)\b", r"\1 of \2", text)
    for pattern, placeholder in PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    return text


def shapes_of(line: str) -> set[str]:
    """What must be found of a line: of a progress line each part, of a result its name, else the whole line."""
    if PART in line:
        return {shape_of(part) for part in line.split(PART)}
    if line.startswith("  "):
        name, _, value = line.strip().partition("  ")
        return {f"{name} NUMBER" if re.fullmatch(r"[\d.]+", value.strip()) else name}
    return {shape_of(line)}


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines of its output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *output = part.splitlines()
        yield command, output


def install_commands(folder: Path) -> None:
    """Put `python` and `finetune` of the environment that runs the tests into a folder for PATH."""
    folder.mkdir()
    for name, arguments in (("python", ""), ("finetune", "-m finetune_operator.cli")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        script.chmod(0o755)


def test_first_run_works_as_written(tmp_path: Path) -> None:
    install_commands(tmp_path / "bin")
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "COLUMNS": "200"}
    ran = 0
    for block in blocks(PAGE):
        if block.title is not None:
            (clone / block.title).write_text(block.text)
        elif block.language == "console":
            for command, expected in commands(block.text):
                done = subprocess.run(
                    command, shell=True, cwd=clone, env=environment, text=True, timeout=600,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )  # fmt: skip
                assert done.returncode == 0, f"{command}\n{done.stdout}"
                actual = set().union(*(shapes_of(line) for line in done.stdout.splitlines()))
                shown = set().union(*(shapes_of(line) for line in expected if line != "..."))
                if command.startswith("finetune predict"):
                    shown = set()  # the text differs with the versions of the libraries
                assert shown - actual == set(), f"{command}\n{done.stdout}"
                ran += 1
    assert ran == 4
    assert list((clone / ".finetune/storage/hello/manifests").iterdir())
    assert (clone / ".finetune/storage/hello/model/training/loss.png").is_file()
