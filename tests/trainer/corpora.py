"""Real data that every machine has: Python's standard library, cut into rows for each kind of task."""

from __future__ import annotations

import ast
import functools
import sysconfig
from pathlib import Path
from typing import Any

LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "email", "unittest", "xml")


@functools.cache
def functions(package: str) -> list[tuple[str, str]]:
    """(name, source) of the functions and methods of a package, of 80 to 600 characters each."""
    found = []
    for file in sorted((LIBRARY / package).rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_source_segment(source, node) or ""
                if 80 <= len(text) <= 600:
                    found.append((node.name, text))
    return found


def by_package(most: int = 150) -> list[dict[str, Any]]:
    """Functions labelled by the package they stand in, at most so many of each."""
    return [{"text": text, "label": package} for package in PACKAGES for _, text in functions(package)[:most]]


def texts(most: int = 150) -> list[dict[str, Any]]:
    """The same without labels."""
    return [{"text": row["text"]} for row in by_package(most)]


def by_habit(most: int = 150) -> list[dict[str, Any]]:
    """Functions with all the habits they have: whether they return, raise, or loop."""
    habits = {"returns": "return ", "raises": "raise ", "loops": "for "}
    return [
        {"text": row["text"], "label": [name for name, word in habits.items() if word in row["text"]]} for row in texts(most)
    ]


def by_indentation(most: int = 150) -> list[dict[str, Any]]:
    """Functions and the share of their characters that are blanks, times ten."""
    return [{"text": row["text"], "label": 10 * row["text"].count(" ") / len(row["text"])} for row in texts(most)]


def questions(most: int = 150) -> list[tuple[str, str]]:
    """Whether a function may be called from elsewhere, and the answer, which its name gives away; each function once."""
    names = {f"{package}: {name}": name for package in PACKAGES for name, _ in functions(package)[:most]}
    return [(f"May I call {called}?", _manners(name)) for called, name in names.items()]


def conversations(most: int = 150) -> list[dict[str, Any]]:
    """The questions asked and answered, after a message of the system."""
    return [
        {
            "messages": [
                {"role": "system", "content": "You know Python."},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in questions(most)
    ]


def preferences(most: int = 150) -> list[dict[str, Any]]:
    """The questions with the answer that is short, and the one that says why."""
    return [
        {"prompt": f"{question}\n", "chosen": answer.partition(" ")[0], "rejected": answer}
        for question, answer in questions(most)
    ]


def _manners(name: str) -> str:
    if name.startswith("__"):
        return "Python itself calls it."
    return "No, it is private." if name.startswith("_") else "Yes, it is public."
